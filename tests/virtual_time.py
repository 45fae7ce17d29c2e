"""Tests whose matter is time, without a clock: time passes while everybody waits, and passes at once.

`in_virtual_time` runs a test in a loop of its own, in which seconds take none and come out the same on any machine:

- `loop.time()`, `time.monotonic()`, `time.perf_counter()` and `time.sleep()` are of the virtual clock, which jumps to
  the next timer when nothing else is to be done. A turn of the loop takes TURN_S, so that who polls sees time pass.
  Computing takes no time but what `VirtualLoop.compute` says, which `time.thread_time()` counts.
- Connections are made in memory, between servers and clients of this loop. They carry bytes in order and at once, make
  a sender wait that is ahead of its reader, and end as TCP's do.
- Work for threads is done in the loop; its answer comes after the time that it slept.

Where everybody waits for ever, or for hours, the test fails at once.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import selectors
import socket
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, cast

import pytest

TURN_S = 1e-5
LIMIT_S = 20_000.0  # no test takes so long
PIECE_BYTES = 2**16  # that a reader gets at once
UNREAD_BYTES = 2**17  # that a reader's system keeps for it; what is more waits at the sender's

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


def in_virtual_time(test: Callable[_P, Coroutine[Any, Any, None]]) -> Callable[_P, None]:
    """Run a test, which may not use asynchronous fixtures, in virtual time."""

    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.MonkeyPatch.context() as patch:
            loop = cast(VirtualLoop, runner.get_loop())
            patch.setattr(time, "monotonic", loop.time)
            patch.setattr(time, "perf_counter", loop.time)
            patch.setattr(time, "sleep", loop.pass_time)
            patch.setattr(time, "thread_time", lambda: loop.computed_s)
            runner.run(test(*args, **kwargs))

    return run


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock and a network of its own."""

    def __init__(self) -> None:
        self.computed_s = 0.0
        self._now_s = 1000.0
        self._servers: dict[tuple[str, int], Callable[[], asyncio.Protocol]] = {}
        self._workers: dict[object, asyncio.Lock] = {}
        super().__init__(_Selector(self.pass_time))

    def time(self) -> float:
        return self._now_s

    def pass_time(self, seconds: float) -> None:
        self._now_s += seconds
        if self._now_s > LIMIT_S:
            raise RuntimeError(f"this has gone on for {LIMIT_S:g} s of virtual time")

    def compute(self, seconds: float) -> None:
        """As if the processor had been busy for so long."""
        self.computed_s += seconds
        self.pass_time(seconds)

    # Threads

    def run_in_executor(self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        answer: asyncio.Future[_T] = self.create_future()
        worker = asyncio.Lock() if executor is None else self._workers.setdefault(executor, asyncio.Lock())
        self.create_task(self._work(worker, functools.partial(func, *args), answer))
        return answer

    async def _work(self, worker: asyncio.Lock, call: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        result: Any = None
        async with worker:
            begin_s = self._now_s
            try:
                result = call()
            except Exception as error:
                result = error
            slept_s, self._now_s = self._now_s - begin_s, begin_s
            await asyncio.sleep(slept_s)
        if answer.done():
            return
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    # Network

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        sock = options.get("sock")
        if sock is None:
            sock = socket.socket()
            sock.bind((host, port))
        self._servers[sock.getsockname()] = protocol_factory
        return _Server(sock, lambda: self._servers.pop(sock.getsockname(), None))  # type: ignore[abstract]  # it serves

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        await asyncio.sleep(0)
        serve = self._servers.get((host, port))
        if serve is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        ends = here, there = _End(protocol_factory()), _End(serve())
        here.peer, there.peer = there, here
        for end in ends:
            end.protocol.connection_made(end)
        return here, here.protocol


class _Selector(selectors.DefaultSelector):
    """Never waits, and lets time pass instead."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout is None:
            raise RuntimeError("everybody waits, and nothing will happen any more")
        self._pass_time(TURN_S if events or not timeout else timeout)
        return events


class _Server(asyncio.AbstractServer):
    def __init__(self, sock: socket.socket, close: Callable[[], object]) -> None:
        self.sockets: tuple[socket.socket, ...] = (sock,)
        self._close = close

    def close(self) -> None:
        if self.sockets:
            self._close()
            self.sockets[0].close()
            self.sockets = ()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def is_serving(self) -> bool:
        return bool(self.sockets)

    async def wait_closed(self) -> None:
        pass


class _Socket:
    """What a connection is asked for below its transport."""

    family = socket.AF_INET

    def setsockopt(self, *_: object) -> None:
        pass


class _End(asyncio.Transport):
    """One end of a connection. peer: the other."""

    peer: _End

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"socket": _Socket(), "peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._low, self._high = 2**14, 2**16
        self._is_reading = True
        self._is_behind = False  # and its protocol was told
        self._has_eof = self._is_closing = self._is_lost = self._is_eof_told = False
        self._next: asyncio.Handle | None = None

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast(asyncio.Protocol, protocol)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self._unsent += data
            self._steer()
            self._wake()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._has_eof = True
        self._wake()

    def close(self) -> None:
        self._is_closing = True
        self._wake()

    def abort(self) -> None:
        """Reset the connection: what is under way in either direction is lost."""
        self._lose(None)
        self.peer._lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    def is_closing(self) -> bool:
        return self._is_closing

    def is_reading(self) -> bool:
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self.peer._wake()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 2**16 if high is None else high
        self._low = self._high // 4 if low is None else low
        self._steer()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return max(0, len(self._unsent) - UNREAD_BYTES)

    def _wake(self) -> None:
        if self._next is None and not self._is_lost:
            self._next = self._loop.call_soon(self._carry)

    def _carry(self) -> None:
        """Hand over a piece, or the end of all."""
        self._next = None
        if self._is_lost:
            return
        if self.peer._is_lost:
            if self._unsent:
                self._lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
            elif self._is_closing:
                self._lose(None)
        elif self._unsent:
            if self.peer._is_reading or self.peer._is_closing:
                data = bytes(self._unsent[:PIECE_BYTES])
                del self._unsent[:PIECE_BYTES]
                if not self.peer._is_closing:
                    self.peer.protocol.data_received(data)
                self._steer()
                self._wake()
        elif self._has_eof or self._is_closing:
            if not self._is_eof_told:
                self._is_eof_told = True
                if not self.peer._is_closing and not self.peer.protocol.eof_received():
                    self.peer.close()
            if self._is_closing:
                self._lose(None)

    def _steer(self) -> None:
        """Make the protocol wait while more is unsent than it wants."""
        size = self.get_write_buffer_size()
        if not self._is_behind and size > self._high:
            self._is_behind = True
            self.protocol.pause_writing()
        elif self._is_behind and size <= self._low:
            self._is_behind = False
            self.protocol.resume_writing()

    def _lose(self, error: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = self._is_closing = True
        self._unsent.clear()
        self._loop.call_soon(self.protocol.connection_lost, error)
        self.peer._wake()
