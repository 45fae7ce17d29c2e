"""A connection that hides from an observer of the network how long messages are and when they are sent."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from skydraft.edge.border import DisclosureRecord
from skydraft.errors import TransportError
from skydraft.protocol import padding

PACE_S = 0.05  # twenty frames of 256 bytes a second in each direction; a round trip takes so much longer


class Channel(Protocol):
    """What a `CloudClient` needs of a connection; as `transport.websocket.Connection`."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes: ...

    async def round_trip_s(self) -> float: ...

    async def close(self) -> None: ...

    def abort(self) -> None: ...


class PaddedConnection:
    """Sends a padded frame at every beat, whether a message waits or not, from the first message on.

    The cloud answers each frame with one, so that its direction beats in the same way.

    Args:
        record: where the bytes of padding are counted.
    """

    def __init__(self, connection: Channel, record: DisclosureRecord, pace_s: float = PACE_S) -> None:
        self._connection = connection
        self._record = record
        self._pace_s = pace_s
        self._waiting: deque[bytes] = deque()
        self._arrived: deque[bytes] = deque()
        self._beating: asyncio.Task[None] | None = None

    async def send(self, data: bytes) -> None:
        """Send with the next beat; does not wait for it. Raises: TransportError."""
        self._waiting.append(data)
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat())
        elif self._beating.done():
            self._beating.result()

    async def receive(self) -> bytes:
        """Wait for the next message. Raises: TransportError, RemoteProtocolError."""
        while not self._arrived:
            frame = await self._connection.receive()
            messages = padding.unpack(frame)
            self._record.down["padding"] += len(frame) - sum(map(len, messages))
            self._arrived += messages
        return self._arrived.popleft()

    async def round_trip_s(self) -> float:
        """Of a message and its answer: each waits half a beat on average. Raises: TransportError."""
        return await self._connection.round_trip_s() + self._pace_s

    async def close(self) -> None:
        """Say what is still to be said, and goodbye."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        try:
            if self._waiting:
                await self._send_frame()
        except TransportError:
            pass  # it would have been a goodbye
        finally:
            await self._connection.close()

    def abort(self) -> None:
        """Break off without a goodbye."""
        if self._beating is not None:
            self._beating.add_done_callback(lambda beating: beating.cancelled() or beating.exception())
            self._beating.cancel()
        self._connection.abort()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while True:
            await self._send_frame()
            next_s = max(next_s + self._pace_s, loop.time())  # what is late is not made up for: that would show
            await asyncio.sleep(next_s - loop.time())

    async def _send_frame(self) -> None:
        num_bytes = sum(map(len, self._waiting))
        frame = padding.pack(self._waiting)
        self._record.up["padding"] += len(frame) - num_bytes + sum(map(len, self._waiting))
        await self._connection.send(frame)
