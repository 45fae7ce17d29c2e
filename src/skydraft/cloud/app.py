"""The service: the WebSocket endpoint, the vocabulary, health."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Response, WebSocket, WebSocketDisconnect

from skydraft import __version__
from skydraft.cloud.hub import Hub
from skydraft.cloud.scheduler import Scheduler
from skydraft.config import CloudSettings
from skydraft.engines.base import Engine
from skydraft.errors import RemoteProtocolError, VersionMismatch
from skydraft.protocol import codec, messages
from skydraft.protocol.limits import FrameLimits
from skydraft.protocol.messages import FaultCode

log = logging.getLogger("skydraft.cloud")

MAX_UNHANDLED = 16  # messages of a device that the scheduler has not come to: beyond, its socket is not read
UNHANDLED_PAUSE_S = 0.005
MAX_OUTBOX = 1024  # messages that a device has not read yet, before it is cut off
CLOSE_PROTOCOL_ERROR = 1002
CLOSE_TOO_SLOW = 1008


def make_app(engine: Engine, settings: CloudSettings) -> FastAPI:
    """The service over one engine."""
    scheduler = Scheduler(Hub(engine, settings))
    limits = FrameLimits(max_frame_bytes=settings.max_frame_bytes, max_draft_tokens=settings.max_draft_tokens)
    connection_ids = itertools.count()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        scheduler.start()
        yield
        scheduler.stop()

    app = FastAPI(title="skydraft", version=__version__, lifespan=lifespan, openapi_url=None)

    @app.get("/healthz")
    async def healthz(response: Response) -> dict[str, object]:
        """Whether the scheduler runs; what is served."""
        response.status_code = 200 if scheduler.is_alive else 503
        return {
            "ok": scheduler.is_alive,
            "version": __version__,
            "protocol": messages.PROTOCOL_VERSION,
            "model": engine.name,
            "sessions": scheduler.num_sessions,
        }

    @app.get("/v1/vocabulary")
    async def vocabulary() -> dict[str, object]:
        """The id -> token map, for a device that wants to know why its own does not fit."""
        return {"name": engine.vocabulary.name, "tokens": engine.vocabulary.tokens}

    @app.websocket("/v1/session")
    async def session(socket: WebSocket) -> None:
        await socket.accept()
        await _Connection(next(connection_ids), socket, scheduler, limits).serve()

    return app


class _Connection:
    """Carries bytes between one socket and the scheduler."""

    def __init__(self, number: int, socket: WebSocket, scheduler: Scheduler, limits: FrameLimits) -> None:
        self._number = number
        self._socket = socket
        self._scheduler = scheduler
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(MAX_OUTBOX)
        self._num_submitted = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = False

    async def serve(self) -> None:
        """Until the device leaves or breaks the protocol."""
        self._scheduler.connect(self._number, self._deliver)
        self._tasks.add(asyncio.create_task(self._send()))
        try:
            await self._receive()
        except WebSocketDisconnect:
            pass
        except RemoteProtocolError as error:
            await self._refuse(error)
        finally:
            self._scheduler.disconnect(self._number)
            for task in self._tasks:
                task.cancel()

    async def _receive(self) -> None:
        while True:
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                return
            data = event.get("bytes")
            if data is None:
                raise RemoteProtocolError("a text frame came and the protocol is made of binary frames")
            await self._submit(codec.decode_edge_message(data, self._limits))

    async def _submit(self, message: messages.EdgeMessage) -> None:
        if not self._scheduler.is_alive:
            raise RemoteProtocolError("the cloud has failed and ends; its log says why")
        self._scheduler.submit(self._number, message)
        self._num_submitted += 1
        # Polled, because a signal for each message would cost every round what only a flood needs.
        while self._num_submitted - self._scheduler.num_handled(self._number) > MAX_UNHANDLED:  # noqa: ASYNC110
            await asyncio.sleep(UNHANDLED_PAUSE_S)

    def _deliver(self, message: messages.CloudMessage) -> None:
        """Called in the scheduler's thread."""
        self._loop.call_soon_threadsafe(self._post, codec.encode(message))

    def _post(self, data: bytes) -> None:
        if self._is_cut:
            return
        try:
            self._outbox.put_nowait(data)
        except asyncio.QueueFull:
            log.warning("a device does not read: its connection is closed")
            self._is_cut = True
            self._tasks.add(self._loop.create_task(self._cut()))

    async def _cut(self) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.close(CLOSE_TOO_SLOW)

    async def _send(self) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):  # Starlette raises RuntimeError on a socket closed meanwhile
            while True:
                await self._socket.send_bytes(await self._outbox.get())

    async def _refuse(self, error: RemoteProtocolError) -> None:
        code = FaultCode.VERSION if isinstance(error, VersionMismatch) else FaultCode.PROTOCOL
        log.warning("a connection broke the protocol: %s", code)
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.send_bytes(codec.encode(messages.Fault(code, str(error))))
            await self._socket.close(CLOSE_PROTOCOL_ERROR)
