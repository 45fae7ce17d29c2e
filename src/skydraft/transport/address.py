"""Where a cloud is: what a person types, made into the address of its sessions, and who can read on the way there."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit, urlunsplit

from skydraft.errors import ConfigError

SESSION_PATH = "/v1/session"
DEFAULT_PORT = 8471  # of a cloud; a URL without a port means that of its scheme, as everywhere

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def session_url(address: str) -> str:
    """Make `host`, `host:port`, or a ws, wss, http or https URL with or without a path into the WebSocket's URL.

    Without a scheme it is wss, and ws where it is this machine: nothing crosses a network unencrypted unasked; and
    without a port and a path it is a cloud's own port. A path is where the cloud hangs behind a proxy; /v1/session is
    added to it unless it is there.

    Raises:
        ConfigError: it is none of these, or has credentials, a query or a fragment.
    """
    parts = _split(address)
    path = parts.path.rstrip("/")
    if not path.endswith(SESSION_PATH):
        path += SESSION_PATH
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, "", ""))


def exposure(address: str, has_key: bool) -> str | None:
    """Say what whoever is on the way can read; None where the way is encrypted, or does not leave this machine.

    Raises:
        ConfigError: as `session_url`.
    """
    url = session_url(address)
    if url.startswith("wss:") or is_loopback(url):
        return None
    what = "the key and the text" if has_key else "the text"
    host = urlsplit(url).netloc
    return f"{address} is not encrypted: whoever is on the way reads {what}; use wss://{host} if the cloud has TLS"


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine itself."""
    return is_loopback_host(urlsplit(url).hostname or "")


def is_address(host: str) -> bool:
    """Whether this is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback_host(host: str) -> bool:
    """Whether an address or name is certainly this machine's own."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address if "://" in address else f"wss://{address}")
        if "://" not in address:
            if is_loopback_host(parts.hostname or ""):
                parts = parts._replace(scheme="ws")
            if parts.port is None and not parts.path:
                parts = parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{DEFAULT_PORT}")
        is_usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or any(character.isspace() or not character.isprintable() for character in address):
        raise ConfigError(
            f"unknown form of a cloud's address {address!r}; expected host, host:port, or a URL of ws, wss, http, https"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            f"the cloud's address for host {parts.hostname} has credentials, a query or a fragment in it: give host, "
            "port and path only, and the key on its own"
        )
    return parts
