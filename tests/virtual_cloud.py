"""A cloud in the event loop of a test in virtual time: its connections and sessions are a real cloud's.

Real are `cloud/connection`, `cloud/scheduler` but for its thread, and all below them; not uvicorn and the guards.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import time
from collections import deque
from collections.abc import AsyncIterator
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
        starlette: Any = _StarletteSocket(socket)
        await DeviceConnection(next(numbers), starlette, LOCAL_USER, scheduler, settings, Metrics()).serve()

    scheduling = asyncio.create_task(scheduler.run())
    async with serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None, max_size=2**23) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    scheduling.cancel()
    await asyncio.gather(scheduling, return_exceptions=True)


class LoopScheduler(Scheduler):
    """A scheduler in the event loop; a pass is work for a thread, and takes as long as its engine sleeps."""

    def __init__(self, registry: SessionRegistry) -> None:
        super().__init__(registry)
        self._inbox: Any = _Inbox()
        self._thread: Any = SimpleNamespace(is_alive=lambda: True)

    async def run(self) -> None:
        while True:
            for call in self._arrived(wait=False):
                assert call is not None
                call()
            if self._registry.is_busy:
                self._send(await asyncio.to_thread(self._registry.step))
            else:
                await self._inbox.wait(EXPIRY_PERIOD_S)
            self._send(self._registry.expire() + self._registry.reassure())


class _Inbox:
    """As `queue.SimpleQueue`, without threads."""

    def __init__(self) -> None:
        self._items = deque[Any]()
        self._has_items = asyncio.Event()

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._has_items.set()

    def get_nowait(self) -> Any:
        if not self._items:
            self._has_items.clear()
            raise queue.Empty
        return self._items.popleft()

    async def wait(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._has_items.wait()


class _StarletteSocket:
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
