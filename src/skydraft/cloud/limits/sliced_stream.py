"""Hands what a connection brings to its protocol in small pieces, so that other connections have their turn in between.

An event loop gives out what has arrived in pieces of 256 kB and more, and while a protocol parses one of them all other
connections wait. How long that is depends on the number of frames in it and not on its size: 256 kB are 40,000 pings.
"""

from __future__ import annotations

import asyncio
import logging
import time

from skydraft.cloud.limits.allowance import Allowance
from skydraft.cloud.limits.strangers import Stranger, Strangers

log = logging.getLogger("skydraft.cloud")

SLICE_BYTES = 2**11  # some 300 of the smallest frames: 5 ms
TURN_S = 0.001  # of handing over, before others have their turn
SHARE, SAVED_S = 0.1, 0.1  # of the event loop's time that parsing for one connection may take; of it, at once
KEY_SHARE, KEY_SAVED_S = 0.15, 0.05  # the same, for all connections of one key: 10,000 messages a second
MAX_REQUEST_BYTES = 2**16  # of a connection that has not come in
MIN_UNFINISHED_BYTES = 2**28  # that all connections may hold together, or
UNFINISHED_MESSAGES = 4  # of the largest kind, where those are more
# What a protocol asks of its transport and the real one answers, without a call in between.
UNCHANGED = (
    "abort",
    "close",
    "get_extra_info",
    "get_write_buffer_size",
    "is_closing",
    "set_write_buffer_limits",
    "write",
)


class UnfinishedMessages:
    """Bounds the memory of messages whose end has not come, of all connections together.

    Beyond the bound, the key that holds most loses the connection of which nothing came for longest.

    Args:
        max_frame_bytes: of one message.
    """

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_bytes = max(MIN_UNFINISHED_BYTES, UNFINISHED_MESSAGES * max_frame_bytes)
        self._held: dict[SlicedStream, int] = {}  # the one of which nothing came for longest is first
        self._num_bytes = 0

    def hold(self, stream: SlicedStream, num_bytes: int) -> None:
        """A connection now holds this many bytes."""
        self._num_bytes += num_bytes - self._held.pop(stream, 0)
        if num_bytes:
            self._held[stream] = num_bytes
        while self._num_bytes > self._max_bytes:
            self._cut_one()

    def _cut_one(self) -> None:
        by_key: dict[str, int] = {}
        for stream, num_bytes in self._held.items():
            by_key[stream.key] = by_key.get(stream.key, 0) + num_bytes
        largest = max(by_key, key=by_key.__getitem__)
        victim = next(stream for stream in self._held if stream.key == largest)
        self._num_bytes -= self._held.pop(victim)
        log.warning("a connection was cut off: too much of unfinished messages", extra={"facts": {"key": largest}})
        victim.abort()


class SlicedStream(asyncio.Transport, asyncio.Protocol):
    """Stands between a transport and a protocol: the protocol of the one and the transport of the other.

    Its connection is a stranger's until `admit`.

    Args:
        protocol: the first; `set_protocol` puts another in its place.
        key_times: what is left for parsing of the time of each key, by its name; of all connections.
        max_request_bytes: that come before it has come in.

    Attributes:
        key: the name of the key that it came in with.
    """

    def __init__(
        self,
        protocol: asyncio.Protocol,
        stranger: Stranger,
        strangers: Strangers,
        key_times: dict[str, Allowance],
        unfinished: UnfinishedMessages,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        super().__init__()
        self._max_request_bytes = max_request_bytes
        self.key = ""
        self._protocol = protocol
        self._stranger = stranger
        self._strangers = strangers
        self._key_times = key_times
        self._unfinished = unfinished
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._time = Allowance(SHARE, SAVED_S)
        self._has_come_in = False
        self._key_time: Allowance | None = None  # of the key that it came in with last
        self._backlog = bytearray()
        self._is_wanted = True  # the protocol reads
        self._is_reading = True  # the transport does
        self._next: asyncio.Handle | None = None
        self._num_request_bytes = 0

    def admit(self, key: str) -> None:
        """The device has come in and is no stranger any more. key: the name of its key."""
        self.key, self._key_time = key, self._key_times.setdefault(key, Allowance(KEY_SHARE, KEY_SAVED_S))
        self._has_come_in = True
        self._strangers.leave(self._stranger)

    @property
    def has_come_in(self) -> bool:
        return self._has_come_in

    def part(self, seconds: float) -> None:
        """What it came in for is done: until it comes in again it is a stranger, with a stranger's places and bytes.

        What it sends next is paid for by the same key, which thus gains nothing by sending a request after the other.

        Args:
            seconds: taken from its time for parsing, and from its key's: what it came in for took time too.
        """
        now_s = time.monotonic()
        for allowance in self._times:
            allowance.use(seconds, now_s)
        self._has_come_in, self._num_request_bytes = False, len(self._backlog)
        self._unfinished.hold(self, 0)
        self._strangers.leave(self._stranger)
        self._strangers.enter(self._stranger)

    def charge(self, seconds: float) -> None:
        """Take so much from this connection's time for parsing, beyond what its parsing takes."""
        self._time.use(seconds, time.monotonic())

    def hold(self, num_bytes: int) -> None:
        """The protocol now holds this many bytes of an unfinished message."""
        if not self._transport.is_closing():  # else they are about to go
            self._unfinished.hold(self, num_bytes + len(self._backlog))

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        for name in UNCHANGED:
            setattr(self, name, getattr(transport, name))
        self._stranger.cut = transport.abort
        if self._stranger not in self._strangers:
            transport.abort()
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        self._backlog += data
        if not self._has_come_in:
            self._num_request_bytes += len(data)
            if self._num_request_bytes > self._max_request_bytes:
                self.abort()
        if self._next is None:
            self._hand_over()

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._strangers.leave(self._stranger)
        self._backlog.clear()
        self._unfinished.hold(self, 0)
        if self._next is not None:
            self._next.cancel()
        self._protocol.connection_lost(exc)

    # What the protocol calls

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def pause_reading(self) -> None:
        self._is_wanted = False  # the transport reads on until something comes: mostly the protocol is back by then

    def resume_reading(self) -> None:
        self._is_wanted = True
        if self._backlog and self._next is None:
            self._next = self._loop.call_soon(self._hand_over)

    # Between them

    @property
    def _times(self) -> list[Allowance]:
        return [self._time] if self._key_time is None else [self._time, self._key_time]

    def _hand_over(self) -> None:
        """Give the protocol pieces of the backlog while it reads and this connection and its key have time left."""
        self._next = None
        turn_ends_s = time.thread_time() + TURN_S  # it stands still while others have the processor, or Python
        times = self._times
        while self._backlog and self._is_wanted and not self._transport.is_closing():
            now_s = time.monotonic()
            if wait_s := max(allowance.wait_s(now_s) for allowance in times):
                self._next = self._loop.call_later(wait_s, self._hand_over)
                break
            began_s = time.thread_time()
            if began_s > turn_ends_s:
                self._next = self._loop.call_soon(self._hand_over)
                break
            piece = bytes(self._backlog[:SLICE_BYTES])
            del self._backlog[:SLICE_BYTES]
            self._protocol.data_received(piece)
            took_s, now_s = time.thread_time() - began_s, time.monotonic()
            for allowance in times:
                allowance.use(took_s, now_s)
        is_reading = not self._backlog
        if is_reading != self._is_reading and not self._transport.is_closing():
            self._is_reading = is_reading
            (self._transport.resume_reading if is_reading else self._transport.pause_reading)()
