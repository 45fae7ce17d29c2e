"""The connections through an emulated link: two sockets each, and a pipe either way."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, cast

from skydraft.core import read_int
from skydraft.errors import ConfigError
from skydraft.transport.link.shaping import Shaper

KERNEL_BYTES = 2**17  # that the proxy's sockets take in before it reads: else the kernel's queue hides the link's
TIMER_S = 0.0011  # event loops wake up to a millisecond late: the last of a wait is spent awake
RESET = struct.pack("ii", 1, 0)  # SO_LINGER that makes closing a reset


class Address(NamedTuple):
    """Where a socket is; as text HOST:PORT."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read HOST:PORT.

        Raises:
            ConfigError: it is none.
        """
        host, _, port = text.rpartition(":")
        with suppress(ValueError):
            if host and 0 <= (number := read_int(port)) <= 65535:
                return cls(host.strip("[]"), number)
        raise ConfigError(f"address {text!r} is not HOST:PORT")


@dataclass
class Direction:
    """What all connections share of one direction. num_bytes: that came out."""

    shaper: Shaper
    num_bytes: int = 0


@dataclass
class Passage:
    """What all connections of a link share.

    cut: breaks all of them off; called when `cut_at_bytes` have come out of both directions together.
    """

    up: Direction
    down: Direction
    cut: Callable[[], None]
    frozen_until: float = float("-inf")
    cut_at_bytes: float = float("inf")

    @property
    def num_bytes(self) -> int:
        return self.up.num_bytes + self.down.num_bytes


class Pair:
    """A connection: its two sockets, and a pipe each way.

    Args:
        forget: told when it is over.
    """

    def __init__(self, passage: Passage, upstream: Address, forget: Callable[[Pair], None]) -> None:
        self.passage = passage
        self._forget = forget
        self.loop = asyncio.get_running_loop()
        self.client, self.upstream = _Endpoint(), _Endpoint()
        # The handshake: what the client sends first enters the link one round trip after it began to connect.
        round_trip_ms = passage.up.shaper.settings.delay_ms + passage.down.shaper.settings.delay_ms
        self.up = _Pipe(self, passage.up, self.client, self.upstream, self.loop.time() + round_trip_ms / 1e3)
        self.down = _Pipe(self, passage.down, self.upstream, self.client, self.loop.time())
        self.client.outgoing = self.upstream.incoming = self.up
        self.upstream.outgoing = self.client.incoming = self.down
        self._connecting = self.loop.create_task(self._connect(upstream))

    async def _connect(self, upstream: Address) -> None:
        try:
            await self.loop.create_connection(lambda: self.upstream, *upstream)
        except OSError:
            self.break_off()

    def break_off(self) -> None:
        """Reset both sides; what is inside is lost."""
        self._connecting.cancel()
        for pipe, endpoint in ((self.up, self.client), (self.down, self.upstream)):
            pipe.stop()
            if endpoint.transport is not None:
                _reset(endpoint.transport)
        self._forget(self)

    def end_if_finished(self) -> None:
        """Close both sides once both have said all that they will."""
        if self.up.is_finished and self.down.is_finished:
            for endpoint in (self.client, self.upstream):
                if endpoint.transport is not None:
                    endpoint.transport.close()
            self._forget(self)


class _Endpoint(asyncio.Protocol):
    """One socket of a connection. outgoing, incoming: what it feeds, and what feeds it."""

    outgoing: _Pipe
    incoming: _Pipe
    transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.incoming.is_finished:  # broken off while it was being made
            _reset(self.transport)
            return
        with suppress(OSError):  # it may be gone already
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
        self.incoming.wake()

    def data_received(self, data: bytes) -> None:
        self.outgoing.feed(data)

    def eof_received(self) -> bool:
        self.outgoing.finish()
        return True  # the other direction goes on

    def connection_lost(self, error: Exception | None) -> None:
        self.incoming.stop()
        if error is not None:
            self.outgoing.finish(is_broken=True)

    def pause_writing(self) -> None:
        self.incoming.is_blocked = True

    def resume_writing(self) -> None:
        self.incoming.is_blocked = False
        self.incoming.wake()


class BrokenOff(asyncio.Protocol):
    """Breaks a connection off as soon as it is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _reset(cast(asyncio.Transport, transport))


class _Piece(NamedTuple):
    """due: when it comes out. data: None where the sender has said all (is_broken: in the midst of it)."""

    due: float
    data: bytes | None
    is_broken: bool = False


class _Pipe:
    """One direction of one connection: bytes that are on their way.

    Args:
        opens_at: what enters before waits until then.
    """

    def __init__(self, pair: Pair, direction: Direction, source: _Endpoint, sink: _Endpoint, opens_at: float) -> None:
        self.is_blocked = False  # the receiver does not read
        self.is_finished = False
        self._pair = pair
        self._direction = direction
        self._source = source
        self._sink = sink
        self._opens_at = opens_at
        self._queue: deque[_Piece] = deque()
        self._num_queued = 0  # bytes
        self._timer: asyncio.Handle | None = None

    def feed(self, data: bytes) -> None:
        """Let bytes enter; they are lost where the receiver is gone."""
        if self.is_finished:
            return
        shaper, now = self._direction.shaper, max(self._pair.loop.time(), self._opens_at)
        size = int(min(shaper.piece_bytes, len(data)))
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self._queue.append(_Piece(shaper.schedule(len(piece), now), piece))
        self._num_queued += len(data)
        self._steer_source()
        self.wake()

    def finish(self, is_broken: bool = False) -> None:
        """The sender has said all; that too takes its time to arrive."""
        now = max(self._pair.loop.time(), self._opens_at)
        self._queue.append(_Piece(self._direction.shaper.schedule(0, now), None, is_broken))
        self.wake()

    def stop(self) -> None:
        """The receiver is gone: what is inside is lost."""
        self.is_finished = True
        self._queue.clear()
        self._set_timer(None)

    def wake(self) -> None:
        """Deliver what is due, and come back for the rest."""
        self._set_timer(None)
        loop, passage = self._pair.loop, self._pair.passage
        while self._queue and not self.is_blocked and self._sink.transport is not None:
            due = max(self._queue[0].due, passage.frozen_until)
            if loop.time() < due:
                self._set_timer(self._wait_until(due))
                break
            self._deliver(self._queue.popleft())

    def _wait_until(self, due: float) -> asyncio.Handle:
        loop = self._pair.loop
        if due - loop.time() > TIMER_S:
            return loop.call_at(due - TIMER_S, self.wake)
        # Only the end of what is inside must arrive to the microsecond; a piece with others behind it need not.
        return loop.call_soon(self.wake) if len(self._queue) == 1 else loop.call_at(due, self.wake)

    def _deliver(self, piece: _Piece) -> None:
        if piece.data is None:
            self._end(piece.is_broken)
            return
        passage, sink = self._pair.passage, self._sink.transport
        assert sink is not None
        room = passage.cut_at_bytes - passage.num_bytes
        data = piece.data if len(piece.data) < room else piece.data[: int(room)]
        sink.write(data)
        self._direction.num_bytes += len(data)
        self._num_queued -= len(piece.data)
        self._steer_source()
        if len(piece.data) >= room:
            passage.cut()

    def _end(self, is_broken: bool) -> None:
        if is_broken:
            self._pair.break_off()
            return
        self.is_finished = True
        if self._sink.transport is not None and self._sink.transport.can_write_eof():
            with suppress(OSError):  # a socket that is not read any more may be gone without anybody having noticed
                self._sink.transport.write_eof()
        self._pair.end_if_finished()

    def _steer_source(self) -> None:
        """Make the sender wait while the queue is full."""
        source = self._source.transport
        assert source is not None
        if self._num_queued >= self._direction.shaper.settings.queue_bytes:
            source.pause_reading()
        else:
            source.resume_reading()

    def _set_timer(self, timer: asyncio.Handle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer


def _reset(transport: asyncio.Transport) -> None:
    with suppress(OSError):  # it may be gone already
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()
