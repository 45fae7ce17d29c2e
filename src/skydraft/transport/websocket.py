"""The device's end of a connection: binary messages over a WebSocket.

A peer is dead when it has given no sign of life for `dead_after_s`. Signs are whatever arrives, answers to pings, and
that it takes in a long message: the connection of a slow uplink lives while it moves.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    ProxyError,
)
from websockets.frames import Close, CloseCode
from websockets.protocol import State

from skydraft.errors import CloudBusy, CloudFault, TransportError
from skydraft.transport.address import is_loopback, session_url
from skydraft.transport.headers import PROMPT_READ, ROUTE_HEADER, WANTS_HEADER

FRAGMENT_BYTES = 2**14  # pings and pongs pass between the fragments of a long message
UNSENT_BYTES = 2**15  # that the kernel holds back: more would only delay pings, and hide that a peer is dead
CLOSE_TIMEOUT_S = 2.0
LOOKS_PER_DEATH = 4  # quiet looks at a peer until it is dead: at one, two and three a ping is out

UNKNOWN_ISSUER = (18, 19, 20, 21)  # of OpenSSL: self-signed, or signed by one that the system does not know
MAX_SAID_CHARS = 200  # of what a server says about its refusal

_NOT_NOW = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE)
# Those that websockets would follow.
_REDIRECTS = (
    *(HTTPStatus.MULTIPLE_CHOICES, HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER),
    *(HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT),
)


class _Handshake(connect_websocket):
    """Connects to the address that was given, and to no other: a redirect would take the key and the text along."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        # Not documented: hence the upper bound of websockets in pyproject.toml, and a test.
        return exc


class _Wire(ClientConnection):
    """A WebSocket that remembers whether it has heard anything."""

    has_heard = True

    def data_received(self, data: bytes) -> None:
        self.has_heard = True
        super().data_received(data)


async def connect(
    address: str,
    *,
    token: str | None = None,
    route_id: str | None = None,
    timeout_s: float = 10.0,
    dead_after_s: float = 20.0,
    max_frame_bytes: int = 2**23,
    tls: ssl.SSLContext | None = None,
) -> Connection:
    """Connect to a cloud.

    Args:
        address: as for `address.session_url`.
        token: the API key; sent as a bearer token.
        route_id: names a text to what spreads devices over several clouds, so that each text goes back to the same one.
        timeout_s: for the connection, TLS and the handshake together.
        dead_after_s: without a sign of life.
        max_frame_bytes: of one message of the cloud.
        tls: which certificates to trust; None: those that the system trusts.
    Raises:
        ConfigError: the address is none.
        CloudFault: the cloud refuses the key, wants one, or does not serve this device (code "unauthorized").
        CloudBusy: it has no room, or is not up yet.
        TransportError: no cloud could be reached there.
    """
    url = session_url(address)
    options: dict[str, Any] = {"ssl": tls} if tls is not None and url.startswith("wss:") else {}
    if is_loopback(url):
        options["proxy"] = None  # a proxy's loopback is not ours
    try:
        wire = await _Handshake(
            url,
            additional_headers=_headers(token, route_id),
            user_agent_header=None,  # nobody need know which Python this is
            compression=None,  # ids do not compress, and it takes time
            open_timeout=timeout_s,
            ping_interval=None,  # `Connection` does it: the library's waits without end where its buffer is full
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=max_frame_bytes,
            create_connection=_Wire,
            **options,
        )
    except (OSError, InvalidHandshake, InvalidProxy, EOFError, UnicodeError, ImportError) as error:
        raise _failure(url, error, timeout_s, has_key=bool(token)) from error
    assert isinstance(wire, _Wire)
    return Connection(wire, url, dead_after_s, max_frame_bytes)


def _headers(token: str | None, route_id: str | None) -> dict[str, str]:
    own = {"Authorization": f"Bearer {token}"} if token else {}
    return {WANTS_HEADER: PROMPT_READ} | own | ({ROUTE_HEADER: route_id} if route_id else {})


class Connection:
    """A connection to a cloud; made by `connect`."""

    def __init__(self, wire: _Wire, url: str, dead_after_s: float, max_frame_bytes: int) -> None:
        self.url = url
        self._wire = wire
        self._dead_after_s = dead_after_s
        self._max_frame_bytes = max_frame_bytes
        self._why_aborted: str | None = None
        self._ping: asyncio.Task[None] | None = None
        _tune(wire.transport.get_extra_info("socket"))
        self._watch = asyncio.create_task(self._watch_for_death())

    @property
    def is_open(self) -> bool:
        """Whether no end of it is known: the other side may be gone all the same."""
        return self._wire.state is State.OPEN

    async def send(self, data: bytes) -> None:
        """Send a message; waits while the link is behind. Cancelled in a long message, it breaks the connection off.

        Raises:
            TransportError: the connection is lost.
        """
        is_long = len(data) > FRAGMENT_BYTES
        try:
            await self._wire.send(self._fragments(data) if is_long else data)
        except ConnectionClosed as error:
            raise self._loss(error) from error
        except asyncio.CancelledError:
            if is_long:
                self._abort("a message to it was cancelled half way")
            raise

    def _fragments(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), FRAGMENT_BYTES):
            yield data[start : start + FRAGMENT_BYTES]
            self._wire.has_heard = True  # there was room for the fragment, so the peer took in earlier ones

    async def receive(self) -> bytes:
        """Wait for the next message. May be cancelled.

        Raises:
            TransportError: the connection is lost.
        """
        try:
            data = await self._wire.recv()
        except ConnectionClosed as error:
            raise self._loss(error) from error
        if isinstance(data, str):
            self._abort("it sent text and a skydraft cloud sends bytes; is it one?")
            raise TransportError(f"the connection to {self.url} is lost: {self._why_aborted}")
        return data

    async def round_trip_s(self, timeout_s: float = 10.0) -> float:
        """Time a ping and its answer, in seconds. May be cancelled.

        Raises:
            TransportError: the connection is lost, or no answer came in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await (await self._wire.ping())
        except ConnectionClosed as error:
            raise self._loss(error) from error
        except TimeoutError as error:
            raise TransportError(f"{self.url} has not answered a ping within {timeout_s:g} s") from error

    async def close(self) -> None:
        """Say goodbye; takes at most CLOSE_TIMEOUT_S. Closing twice does no harm."""
        self._why_aborted = self._why_aborted or "this side closed it"
        self._watch.cancel()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._wire.close()
        except TimeoutError:  # what was sent before does not leave, so the goodbye cannot
            self._wire.transport.abort()

    def abort(self) -> None:
        """Break off without a goodbye, which would be waited for: the connection is lost, or was given up."""
        self._watch.cancel()
        self._abort("this side gave it up")

    async def _watch_for_death(self) -> None:
        num_quiet = 0
        while not self._wire.transport.is_closing():
            self._wire.has_heard = False
            await asyncio.sleep(self._dead_after_s / LOOKS_PER_DEATH)
            # Looks are counted and not time: if this process was stopped, the peer still gets its pings.
            is_alive = self._wire.has_heard or not self._wire.transport.is_reading()
            num_quiet = 0 if is_alive else num_quiet + 1
            if num_quiet == LOOKS_PER_DEATH - 1:
                self._abort(f"it gave no sign of life for {self._dead_after_s:g} s")
            elif num_quiet and (self._ping is None or self._ping.done()):
                self._ping = asyncio.create_task(self._send_ping())

    async def _send_ping(self) -> None:
        with suppress(ConnectionClosed):
            await self._wire.ping()

    def _abort(self, why: str) -> None:
        self._why_aborted = self._why_aborted or why
        self._wire.transport.abort()

    def _loss(self, error: ConnectionClosed) -> TransportError:
        self._watch.cancel()
        why = self._why_aborted or _why_closed(error, self._max_frame_bytes)
        return TransportError(f"the connection to {self.url} is lost: {why}")


def _tune(sock: socket.socket) -> None:
    with suppress(OSError):  # tuning: a system without an option works, less well
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _why_closed(error: ConnectionClosed, max_frame_bytes: int) -> str:
    if error.rcvd is not None and (error.rcvd_then_sent or error.sent is None):
        return _why_cloud_closed(error.rcvd)
    if error.sent is not None and error.sent.code == CloseCode.MESSAGE_TOO_BIG:
        return f"the cloud sent more than {max_frame_bytes} bytes in one message"
    if error.sent is not None:
        return f"the cloud sent what is no WebSocket message ({error.sent.reason or error.sent.code})"
    cause = error.__cause__
    return f"it broke off ({cause.strerror or cause})" if isinstance(cause, OSError) else "it broke off"


def _why_cloud_closed(close: Close) -> str:
    match close.code:
        case CloseCode.NORMAL_CLOSURE:
            return "the cloud closed it"
        case CloseCode.GOING_AWAY | CloseCode.SERVICE_RESTART:
            return "the cloud is shutting down"
        case CloseCode.MESSAGE_TOO_BIG:
            return "the cloud refused a message as too large"
    return f"the cloud closed it with code {close.code}" + (f" ({close.reason})" if close.reason else "")


def _failure(url: str, error: Exception, timeout_s: float, has_key: bool) -> TransportError | CloudFault:
    status = error.response.status_code if isinstance(error, InvalidStatus) else None
    if status == HTTPStatus.UNAUTHORIZED and has_key:
        return CloudFault("unauthorized", f"{url} does not accept the key (HTTP 401): check it")
    if status == HTTPStatus.UNAUTHORIZED:
        way_out = "give one with --key or SKYDRAFT_KEY (from Python: key=)"
        return CloudFault("unauthorized", f"{url} asks for an API key (HTTP 401): {way_out}")
    if status == HTTPStatus.FORBIDDEN:  # of a cloud, or of a proxy or a web server that knows no such path
        said = _said(error) or "check the address and its path"
        return CloudFault("unauthorized", f"{url} does not let this device in (HTTP 403): {said}")
    kind = CloudBusy if status in _NOT_NOW else TransportError
    return kind(f"no cloud could be reached at {url}: {_why_failed(url, error, timeout_s)}")


def _said(error: Exception) -> str:
    """What a cloud says in plain text about its refusal; empty where it says nothing that fits a sentence."""
    assert isinstance(error, InvalidStatus)
    text = (error.response.body or b"").decode(errors="replace").strip()
    is_sentence = "text/plain" in error.response.headers.get("Content-Type", "") and text.isprintable()
    return text[:MAX_SAID_CHARS] if is_sentence else ""


def _why_failed(url: str, error: Exception, timeout_s: float) -> str:
    match error:
        case TimeoutError():
            return f"it did not answer within {timeout_s:g} s"
        case ConnectionRefusedError():
            return "nothing listens there; start the cloud or check host and port"
        case socket.gaierror() | UnicodeError():
            return f"the host name {urlsplit(url).hostname} is not known"
        case ssl.SSLCertVerificationError():
            way_out = "; name a file that has it in SSL_CERT_FILE" if error.verify_code in UNKNOWN_ISSUER else ""
            return f"its certificate is not trusted ({error.verify_message}){way_out}"
        case ssl.SSLError():
            return f"TLS failed ({error.reason or error}); is it a ws:// address?"
        case ConnectionError() if url.startswith("wss:"):
            return "TLS failed (it broke off); is it a ws:// address?"
        case InvalidStatus():
            return _why_status(error.response.status_code)
        case ProxyError() | InvalidProxy() | ImportError():
            return f"the proxy of this system's settings failed ({error})"
        case OSError():
            return str(error.strerror or error) or "it broke off"
    hint = "; is it a wss:// address?" if isinstance(error, InvalidMessage) and url.startswith("ws:") else ""
    return f"what answers is no skydraft cloud ({error}){hint}"


def _why_status(code: int) -> str:
    if code == HTTPStatus.NOT_FOUND:
        return "a web server answers and has no skydraft cloud at this path (HTTP 404)"
    if code in _REDIRECTS:
        return (
            f"it sends devices on to another address (HTTP {code}), which is not followed: give that one if it is right"
        )
    if code in _NOT_NOW:
        return f"it has no room or is not up now (HTTP {code}); try again"
    return f"it refuses the connection (HTTP {code})"
