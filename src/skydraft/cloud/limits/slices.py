"""Hands what a connection brings to its protocol in small pieces, so that others have their turn in between.

An event loop gives out what has arrived in pieces of 256 kB and more, and whatever a protocol makes of one holds up
everybody else. How long that is depends on how many things are in it and not on its size: 256 kB are 40,000 pings.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

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


class KeyTimes:
    """What may be parsed for each key, by the key's name."""

    def __init__(self) -> None:
        self._by_key: dict[str, Allowance] = {}

    def of(self, key: str) -> Allowance:
        return self._by_key.setdefault(key, Allowance(KEY_SHARE, KEY_SAVED_S))


class Unfinished:
    """What all connections hold of messages whose end has not come.

    Beyond the bound, the key that has most of it loses the connection of which nothing came for longest.

    Args:
        max_frame_bytes: of one message.
    """

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_bytes = max(MIN_UNFINISHED_BYTES, UNFINISHED_MESSAGES * max_frame_bytes)
        self._held: dict[Stream, int] = {}  # the one of which nothing came for longest is first
        self._num_bytes = 0

    def hold(self, stream: Stream, num_bytes: int) -> None:
        """From now on, a connection holds so many."""
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


class Stream(asyncio.Transport, asyncio.Protocol):
    """Stands between a transport and a protocol, and is to each what the other would be.

    It begins as a stranger's.

    Args:
        protocol: the first; `set_protocol` puts another in its place.

    Attributes:
        key: the name of that with which it came in.
    """

    def __init__(
        self,
        protocol: asyncio.Protocol,
        stranger: Stranger,
        strangers: Strangers,
        key_times: KeyTimes,
        unfinished: Unfinished,
    ) -> None:
        super().__init__()
        self.key = ""
        self._protocol = protocol
        self._stranger = stranger
        self._strangers = strangers
        self._key_times = key_times
        self._unfinished = unfinished
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._time = Allowance(SHARE, SAVED_S)
        self._key_time: Allowance | None = None
        self._backlog = bytearray()
        self._is_wanted = True  # the protocol reads
        self._is_reading = True  # the transport does
        self._next: asyncio.Handle | None = None
        self._num_request_bytes = 0

    def admit(self, key: str) -> None:
        """It is a stranger's no more. key: the name of its key."""
        self.key, self._key_time = key, self._key_times.of(key)
        self._strangers.leave(self._stranger)

    def charge(self, seconds: float) -> None:
        """Take from what may be parsed for this connection, beyond the time that it takes."""
        self._time.use(seconds, time.monotonic())

    def hold(self, num_bytes: int) -> None:
        """So much of an unfinished message is held by the protocol."""
        self._unfinished.hold(self, num_bytes + len(self._backlog))

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._stranger.cut = transport.abort
        if self._stranger not in self._strangers:
            transport.abort()
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        self._backlog += data
        if self._stranger in self._strangers:
            self._num_request_bytes += len(data)
            if self._num_request_bytes > MAX_REQUEST_BYTES:
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

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def write(self, data: Any) -> None:
        self._transport.write(data)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    # Between them

    def _hand_over(self) -> None:
        """A piece or more, as long as it is this connection's turn."""
        self._next = None
        began_s = time.thread_time()  # which stands still while others have the processor, or Python
        while self._backlog and self._is_wanted and not self._transport.is_closing():
            if wait_s := self._wait_s():
                self._next = self._loop.call_later(wait_s, self._hand_over)
                break
            if time.thread_time() - began_s > TURN_S:
                self._next = self._loop.call_soon(self._hand_over)
                break
            self._hand_over_piece()
        self._set_reading(not self._backlog)

    def _hand_over_piece(self) -> None:
        piece = bytes(self._backlog[:SLICE_BYTES])
        del self._backlog[:SLICE_BYTES]
        began_s = time.thread_time()
        self._protocol.data_received(piece)
        took_s = time.thread_time() - began_s
        self.charge(took_s)
        if self._key_time is not None:
            self._key_time.use(took_s, time.monotonic())

    def _wait_s(self) -> float:
        """How long until this connection, and its key, have time left."""
        now_s = time.monotonic()
        wait_s = self._time.wait_s(now_s)
        return wait_s if self._key_time is None else max(wait_s, self._key_time.wait_s(now_s))

    def _set_reading(self, is_reading: bool) -> None:
        if is_reading != self._is_reading and not self._transport.is_closing():
            self._is_reading = is_reading
            (self._transport.resume_reading if is_reading else self._transport.pause_reading)()
