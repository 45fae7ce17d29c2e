"""Who may come in, told from the head of a request, before anything of it is believed."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi.requests import HTTPConnection

from skydraft.cloud.access.keys import LOCAL_USER, Holder, KeyRing
from skydraft.config import CloudSettings
from skydraft.errors import ConfigError, SkydraftError
from skydraft.transport.address import is_address, is_loopback_host

_PASSED_ON = ("forwarded", "x-forwarded-for", "x-real-ip", "via")  # by a proxy, so that its address says nothing


class Refusal(SkydraftError):
    """A request that is answered by a status and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        self.status = status
        self.sentence = sentence
        super().__init__(sentence)


class Guard:
    """The rules of who comes in.

    Args:
        ring: the keys; None: this machine's own users come in without one.
    """

    def __init__(self, settings: CloudSettings, ring: KeyRing | None) -> None:
        self._settings = settings
        self._ring = ring
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}

    def holder_of(self, request: HTTPConnection) -> Holder:
        """Who asks.

        Raises:
            Refusal: a web page that may not, no key, or one that nobody has.
        """
        self._check_origin(request)
        if self._ring is None:
            if not self._is_local(request):
                raise Refusal(HTTPStatus.FORBIDDEN, "this cloud has no keys and serves its own machine only")
            return LOCAL_USER
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Refusal(HTTPStatus.UNAUTHORIZED, "this cloud asks for an API key: Authorization: Bearer KEY")
        holder = self._ring.holder_of(key.strip())
        if holder is None:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "nobody has this API key")
        return holder

    def check_metrics(self, request: HTTPConnection) -> None:
        """Let this machine's own users see the metrics, and keys that may.

        Raises:
            Refusal: the request is neither's.
        """
        self._check_origin(request)
        if self._is_local(request) and "authorization" not in request.headers:
            return
        if not self.holder_of(request).grant.sees_metrics:
            raise Refusal(HTTPStatus.FORBIDDEN, "this API key may not see the metrics")

    def check_room(self, holder: Holder, present: Iterable[Holder]) -> None:
        """Bound the connections, in all and of one key.

        Args:
            present: of each connection that there is.
        Raises:
            Refusal: there is no room.
        """
        names = [other.name for other in present]
        if len(names) >= self._settings.max_connections:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"all {len(names)} connections of this cloud are taken")
        num_own = names.count(holder.name)
        if self._ring is not None and num_own >= self._settings.max_connections_per_key:
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"all {num_own} connections of this API key are taken")

    def is_still_good(self, holder: Holder) -> bool:
        """Whether somebody who came in may stay."""
        return self._ring is None or self._ring.knows(holder)

    def reload(self) -> bool:
        """Read the keys again where their file has changed; whether they are new."""
        return self._ring is not None and self._ring.reload()

    def _check_origin(self, request: HTTPConnection) -> None:
        """Browsers name the page that asks; what is no browser does not, and a page cannot leave it out."""
        for origin in request.headers.getlist("origin"):
            if origin.lower().rstrip("/") not in self._origins:
                raise Refusal(HTTPStatus.FORBIDDEN, "web pages of this origin may not use this cloud")

    def _is_local(self, request: HTTPConnection) -> bool:
        """Whether this machine asks by itself; behind a proxy everybody comes from the proxy's address.

        A web page can let a name of its own lead here (DNS rebinding) and is then of the same origin; its browser says
        that name.
        """
        is_direct = not self._settings.behind_proxy and not any(name in request.headers for name in _PASSED_ON)
        is_here = request.client is not None and is_loopback_host(request.client.host)
        return is_direct and is_here and all(map(self._is_own_name, request.headers.getlist("host")))

    def _is_own_name(self, host: str) -> bool:
        """Whether the Host header has an address, localhost or what the cloud listens on: no name of others."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return is_address(name) or name in ("localhost", self._settings.host.lower())


def require_guards(settings: CloudSettings) -> None:
    """Refuse to be open to strangers without keys, or to have keys travel in the clear.

    Raises:
        ConfigError: the settings would do either, or name half a certificate.
    """
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigError("TLS needs a certificate and its key: give both --tls-cert and --tls-key")
    is_open = not is_loopback_host(settings.host)
    if (is_open or settings.behind_proxy) and settings.keys is None:
        where = f"host {settings.host} is open to other machines" if is_open else "a proxy lets other machines in"
        raise ConfigError(
            f"{where} and there are no API keys, so anybody could use the model: make one with "
            "'skydraft cloud-key add NAME --keys FILE' and give --keys FILE"
            + (", or leave out --host" if is_open else "")
        )
    if is_open and settings.tls_cert is None and not settings.behind_proxy:
        raise ConfigError(
            f"host {settings.host} is open to other machines and keys and texts would pass unencrypted: give "
            "--tls-cert and --tls-key, or say --behind-proxy where a proxy in front ends TLS"
        )
