"""uvicorn's protocol for HTTP with the bounds that it lacks, on the time and the memory that an app can cost.

A connection is a stranger's (`cloud/limits/strangers`) whenever no request that came in is under way on it: before the
first, between two, and while an answer waits to be read to its end.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import h11
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from skydraft.cloud.limits.sliced_stream import SlicedStream
from skydraft.cloud.limits.uvicorn_limits import ABORT, ADMIT, CLOSE, MAX_HEAD_BYTES, MAX_HEAD_LINES, ending
from skydraft.gateway.problems import INVALID, Problem

REQUEST_S = 0.001  # of the event loop's time that a request takes beside its parsing, if it is refused
HOLD = "hold"  # in the ASGI scope's state: a request holds so many bytes of its body
END_OF_HEAD = b"\r\n\r\n"
JSON = (b"content-type", b"application/json")


class _Connection(h11.Connection):
    """Ends after the answer to a request that did not come in."""

    def __init__(self, protocol: GatewayHttp) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self._protocol = protocol

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]
        return super().send(event if self._protocol.transport.has_come_in else ending(event))


class GatewayHttp(H11Protocol):
    """HTTP requests with bodies, one after the other on a connection."""

    transport: SlicedStream

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        own = {ADMIT: self._admit, HOLD: self._hold, ABORT: self._abort}
        super().__init__(config, server_state, {**app_state, **own}, _loop)
        self.conn = _Connection(self)
        self._num_lines = 0

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE:
            self._num_lines += data.partition(END_OF_HEAD)[0].count(b"\n")
            if self._num_lines > MAX_HEAD_LINES:
                self.transport.abort()
                return
        else:
            self._num_lines = 0
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._num_lines = 0  # a request that came in one piece was never seen under way
        self.transport.part(REQUEST_S)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """In the form of all other errors."""
        problem = Problem(HTTPStatus.BAD_REQUEST, msg, INVALID)
        answer = h11.Response(status_code=problem.status, headers=[JSON, CLOSE], reason=problem.status.phrase.encode())
        for event in (answer, h11.Data(data=msgspec.json.encode(problem.body())), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _admit(self, key: str) -> None:
        self.transport.admit(key)

    def _hold(self, num_bytes: int) -> None:
        self.transport.hold(num_bytes)

    def _abort(self) -> None:
        self.transport.abort()
