"""The certificate that TLS is made with, renewed while the cloud runs."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from skydraft.cloud.access.file_stamp import Stamp, stamp
from skydraft.errors import ConfigError

log = logging.getLogger("skydraft.cloud")


class Certificate:
    """A certificate and its key, read again when a renewal replaces their files.

    Raises:
        ConfigError: the files cannot be read or do not fit together.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self._stamps = self._look()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load()

    def refresh(self) -> None:
        """Use the files for new connections if they have changed; where they are wrong, keep the last."""
        stamps = self._look()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self._load()
            log.info("certificate read again")
        except ConfigError as error:
            log.error("the certificate stays as it was: %s", error)

    def _look(self) -> tuple[Stamp, Stamp]:
        return stamp(self._cert), stamp(self._key)

    def _load(self) -> None:
        try:
            # Tried apart: one that fails half way would spoil the context that new connections use.
            # An empty password makes a protected key an error; without one OpenSSL would ask at the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key, "")
            self.context.load_cert_chain(self._cert, self._key, "")
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise ConfigError(
                f"the certificate {self._cert} with the key {self._key} cannot be used: {why}; both are PEM files, and "
                "the key has no password"
            ) from error
