"""Decides from the head of a request whether it may come in, and with which key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from skydraft.cloud.access.certificate import Certificate
from skydraft.cloud.access.keys import LOCAL_USER, Holder, KeyRing
from skydraft.errors import ConfigError, SkydraftError
from skydraft.transport.address import is_address, is_loopback_host

# Headers of a request that a proxy passed on: the address that it comes from is the proxy's and says nothing.
_PASSED_ON = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class Refusal(SkydraftError):
    """A request is refused, with an HTTP status and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        self.status = status
        self.sentence = sentence
        super().__init__(sentence)


class GuardSettings(Protocol):
    """The settings of a cloud or of a gateway that concern who may come in."""

    @property
    def host(self) -> str: ...
    @property
    def keys(self) -> str | None: ...
    @property
    def tls_cert(self) -> str | None: ...
    @property
    def tls_key(self) -> str | None: ...
    @property
    def behind_proxy(self) -> bool: ...
    @property
    def allowed_origins(self) -> Sequence[str]: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def max_connections_per_key(self) -> int: ...


class Guard:
    """Checks requests against keys, origins and limits.

    Args:
        ring: the keys; None: this machine's own users come in without a key.
        who: what it guards, in its sentences.
        has_page: it serves a page of its own, which may use it.
    """

    def __init__(
        self, settings: GuardSettings, ring: KeyRing | None, who: str = "this cloud", has_page: bool = False
    ) -> None:
        self._who = who
        self._has_page = has_page
        self._settings = settings
        self._ring = ring
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}

    def holder_of(self, request: HTTPConnection) -> Holder:
        """Whose request it is.

        Raises:
            Refusal: it is from a web page that is not allowed, or has no key or an unknown one.
        """
        self._check_origin(request)
        if self._ring is None:
            if not self._is_local(request):
                raise Refusal(HTTPStatus.FORBIDDEN, f"{self._who} has no keys and serves its own machine only")
            return LOCAL_USER
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Refusal(HTTPStatus.UNAUTHORIZED, f"{self._who} asks for an API key: Authorization: Bearer KEY")
        holder = self._ring.holder_of(key.strip())
        if holder is None:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "nobody has this API key")
        return holder

    def check_metrics(self, request: HTTPConnection) -> None:
        """Let this machine's own users see the metrics, and keys with `sees_metrics`.

        Raises:
            Refusal: the request is from neither.
        """
        self._check_origin(request)
        if self._is_local(request) and "authorization" not in request.headers:
            return
        if not self.holder_of(request).grant.sees_metrics:
            raise Refusal(HTTPStatus.FORBIDDEN, "this API key may not see the metrics")

    def check_room(self, holder: Holder, present: Iterable[Holder]) -> None:
        """Bound the connections, of all keys together and of one key.

        Args:
            present: the holder of each connection that is open.
        Raises:
            Refusal: there is no room.
        """
        names = [other.name for other in present]
        if len(names) >= self._settings.max_connections:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"all {len(names)} connections of {self._who} are taken")
        num_own = names.count(holder.name)
        if self._ring is not None and num_own >= self._settings.max_connections_per_key:
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"all {num_own} connections of this API key are taken")

    def is_still_good(self, holder: Holder) -> bool:
        """Whether a connection of this holder may stay."""
        return self._ring is None or self._ring.knows(holder)

    def reload(self) -> bool:
        """Read the keys again if their file has changed; returns whether they are new."""
        return self._ring is not None and self._ring.reload()

    def _check_origin(self, request: HTTPConnection) -> None:
        """A browser names the page that asks, and the page cannot prevent it; other programs name none."""
        for origin in request.headers.getlist("origin"):
            if origin.lower().rstrip("/") not in self._origins and not self._is_own_page(request, origin):
                raise Refusal(HTTPStatus.FORBIDDEN, f"web pages of this origin may not use {self._who}")

    def _is_own_page(self, request: HTTPConnection, origin: str) -> bool:
        """Whether the page that asks came from here: it has the name that the request is sent to.

        Under a name that was made to resolve to this machine (DNS rebinding) a page is one of its own origin too: it
        has no key, and without keys `_is_local` takes no foreign name.
        """
        return self._has_page and [origin.lower().partition("://")[2]] == request.headers.getlist("host")

    def _is_local(self, request: HTTPConnection) -> bool:
        """Whether the request is from this machine; behind a proxy all requests come from the proxy's address.

        A web page can make a name of its own resolve to this machine (DNS rebinding): then its origin is the cloud's,
        but its browser sends that name as Host.
        """
        is_direct = not self._settings.behind_proxy and not any(name in request.headers for name in _PASSED_ON)
        is_here = request.client is not None and is_loopback_host(request.client.host)
        return is_direct and is_here and all(map(self._is_own_name, request.headers.getlist("host")))

    def _is_own_name(self, host: str) -> bool:
        """Whether the Host header has an address, localhost or what the cloud listens on, and no foreign name."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return is_address(name) or name in ("localhost", self._settings.host.lower())


def require_guards(settings: GuardSettings) -> None:
    """Refuse settings with which strangers could come in without keys, or keys would travel unencrypted.

    Raises:
        ConfigError: the settings would allow either, or name a certificate without its key.
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


def keys_of(settings: GuardSettings) -> KeyRing | None:
    """The API keys; None: only this machine's own users come in. Raises: as KeyRing."""
    return KeyRing(Path(settings.keys)) if settings.keys else None


def certificate_of(settings: GuardSettings) -> Certificate | None:
    """The certificate for TLS; None: TLS ends elsewhere, or there is none. Raises: as Certificate."""
    return Certificate(Path(settings.tls_cert), Path(settings.tls_key or "")) if settings.tls_cert else None
