"""uvicorn's two protocols with the bounds that they lack, on the time and the memory that a peer can cost.

A WebSocket is closed by force in the end: a polite close waits until the peer has taken what was sent, which a peer
that does not read never does.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import Frame

from skydraft.cloud.limits.sliced_stream import SHARE, SlicedStream

MAX_HEAD_BYTES = 2**14
MAX_HEAD_LINES = 128  # each takes time
MIN_FRAGMENT_BYTES = 2**10  # on average: a message in smaller ones costs memory that its size does not tell
MAX_FRAGMENTS = 4096  # of one message, or as many as its largest size has of MIN_FRAGMENT_BYTES
MAX_UNREAD_BYTES = 2**20  # written to a device and not taken by its system
CONTROL_FRAMES_PER_S = 64  # pings and pongs of one connection; those beyond wait, and what is behind them
CLOSE = (b"connection", b"close")
ABORT, ADMIT = "abort", "admit"  # in the ASGI scope's state: end the connection by force; it came in with a key's name


def ending(event: h11.Event) -> h11.Event:
    """The same; a response says that the connection ends with it."""
    if not isinstance(event, h11.Response):
        return event
    return h11.Response(status_code=event.status_code, headers=[*event.headers, CLOSE], reason=event.reason)


class _OneRequest(h11.Connection):
    """A connection for one request without a body: more is not needed and would cost time."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request) and any(_announces_body(*header) for header in event.headers):
            raise h11.RemoteProtocolError("a request with a body")
        return event

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]
        return super().send(ending(event))


def _announces_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and value != b"0")


class GuardedHttp(H11Protocol):
    """HTTP requests: health, metrics, the vocabulary, and the one that begins a WebSocket."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _OneRequest(h11.SERVER, MAX_HEAD_BYTES)
        self._num_lines = 0

    def data_received(self, data: bytes) -> None:
        self._num_lines += data.count(b"\n")
        if self._num_lines > MAX_HEAD_LINES:
            self.transport.abort()
        else:
            super().data_received(data)


class GuardedSocket(WebSocketsSansIOProtocol):
    """A WebSocket whose peer can make it hold and do only so much."""

    transport: SlicedStream

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, ABORT: self._abort, ADMIT: self._admit}, _loop)
        self._max_fragments = max(MAX_FRAGMENTS, config.ws_max_size // MIN_FRAGMENT_BYTES)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.hold(len(self.conn.reader.buffer) + (self.conn.current_size or 0))
        # Answers to pings are written without waiting for room.
        if len(self.frames) > self._max_fragments or self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.conn.reader.discard()  # what is about to end this connection keeps it for some seconds
        self.frames.clear()

    def handle_ping(self) -> None:
        self.transport.charge(SHARE / CONTROL_FRAMES_PER_S)
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        self.transport.charge(SHARE / CONTROL_FRAMES_PER_S)
        super().handle_pong(event)

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # a refusal is an answer, which uvicorn does not know: it would log an error

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except InvalidState:  # the peer has just closed it too, which uvicorn does not expect
            self.transport.close()

    def _abort(self) -> None:
        self.transport.abort()

    def _admit(self, key: str) -> None:
        self.transport.admit(key)
