"""A cloud in the event loop of a test in virtual time: its connections and sessions are a real cloud's.

Real are `cloud/connection`, `cloud/scheduler` but for its thread, and all below them; not uvicorn and the guards.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

from fastapi import WebSocketDisconnect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from skydraft.cloud.access.keys import LOCAL_USER
from skydraft.cloud.connection import DeviceConnection
from skydraft.cloud.metrics import Metrics
from skydraft.cloud.scheduler import EXPIRY_PERIOD_S, Scheduler
from skydraft.cloud.session_registry import SessionRegistry
from skydraft.config import CloudSettings
from skydraft.engines.base import ChunkedEngine, Engine
from skydraft.engines.emulated.paced import Pace, PacedChunkedEngine


def in_pace(engine: ChunkedEngine, pace: Pace) -> PacedChunkedEngine:
    """An engine whose passes take virtual time."""
    return PacedChunkedEngine(engine, pace, clock=time.perf_counter, sleep=time.sleep)


@asynccontextmanager
async def virtual_cloud(engine: Engine, settings: CloudSettings | None = None, **options: Any) -> AsyncIterator[str]:
    """Serve; gives the address. options: of `SessionRegistry`."""
    settings = settings or CloudSettings()
    registry = SessionRegistry(engine, settings, clock=time.monotonic, **options)
    scheduler, numbers = LoopScheduler(registry), itertools.count()

    async def handler(socket: ServerConnection) -> None:
        starlette: Any = StarletteSocket(socket)
        await DeviceConnection(next(numbers), starlette, LOCAL_USER, scheduler, settings, Metrics()).serve()

    scheduling = asyncio.create_task(scheduler.run())
    async with serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None, max_size=2**23) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    scheduling.cancel()
    with suppress(asyncio.CancelledError):
        await scheduling


class LoopScheduler(Scheduler):
    """A scheduler in the event loop; a pass is work for a thread, and takes as long as its engine sleeps."""

    def __init__(self, registry: SessionRegistry) -> None:
        super().__init__(registry)
        self._calls: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._inbox: Any = SimpleNamespace(put=self._calls.put_nowait)
        self._thread: Any = SimpleNamespace(is_alive=lambda: True)

    async def run(self) -> None:
        while True:
            while not self._calls.empty():
                self._calls.get_nowait()()
            if self._registry.is_busy:
                self._send(await asyncio.to_thread(self._registry.step))
            else:
                with suppress(TimeoutError):
                    (await asyncio.wait_for(self._calls.get(), EXPIRY_PERIOD_S))()
            self._send(self._registry.expire() + self._registry.reassure())


class StarletteSocket:
    """What `DeviceConnection` uses of Starlette's WebSocket."""

    def __init__(self, socket: ServerConnection) -> None:
        self.scope: dict[str, Any] = {}
        self._socket = socket

    async def receive(self) -> dict[str, Any]:
        try:
            frame = await self._socket.recv()
        except ConnectionClosed:
            return {"type": "websocket.disconnect"}
        return {"type": "websocket.receive", "bytes": frame if isinstance(frame, bytes) else None}

    async def send_bytes(self, data: bytes) -> None:
        try:
            await self._socket.send(data)
        except ConnectionClosed as error:
            raise WebSocketDisconnect from error

    async def close(self, code: int, reason: str | None = None) -> None:
        await self._socket.close(code, reason or "")
