"""uvicorn's two protocols with the bounds that they lack: a peer costs a bounded time and a bounded memory.

Both are closed by force in the end: a polite close waits until the peer has taken what was sent, which a peer that
does not read never does.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState

REQUEST_S = 30.0  # a connection that has not become a WebSocket ends by then, with whatever it was doing
MAX_HEAD_BYTES = 2**14
SPARE_CONNECTIONS = 32  # beyond those of devices, for health and metrics
MAX_FRAGMENTS = 4096  # of one message: empty ones would cost memory and never reach the limit of its size
MAX_UNREAD_BYTES = 2**20  # written to a device and not taken by its system
ABORT = "abort"  # in the ASGI scope's state: ends the connection by force


def http_protocol(max_connections: int) -> type[asyncio.Protocol]:
    """A protocol for requests that counts connections and ends them by the clock.

    Args:
        max_connections: of devices; some more are taken for requests.
    """

    class GuardedHttp(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > max_connections + SPARE_CONNECTIONS:
                transport.abort()
            else:
                self._end = self.loop.call_later(REQUEST_S, transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._call_off()

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._call_off()
            super().handle_websocket_upgrade(event)

        def _call_off(self) -> None:
            if (end := getattr(self, "_end", None)) is not None:
                end.cancel()

    return GuardedHttp


class GuardedSocket(WebSocketsSansIOProtocol):
    """A WebSocket whose peer cannot make it hold more and more."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, ABORT: self._abort}, _loop)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Answers to pings are written without waiting for room.
        if len(self.frames) > MAX_FRAGMENTS or self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self._abort()

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # a refusal is an answer; uvicorn would log an error for want of another

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except InvalidState:  # the peer has just said goodbye by itself, which uvicorn does not expect
            self.transport.close()

    def _abort(self) -> None:
        self.transport.abort()
