from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from skydraft.cloud.limits import listener as module
from skydraft.cloud.limits.allowance import Allowance
from skydraft.cloud.limits.listener import Listener
from skydraft.cloud.limits.strangers import Stranger, Strangers
from tests.waiting import PATIENCE_S, until


class Greeter(asyncio.Protocol):
    """Says hello, and keeps its stranger's place as long as it is there."""

    def __init__(self, stranger: Stranger, strangers: Strangers) -> None:
        self._stranger = stranger
        self._strangers = strangers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._stranger.cut = transport.abort
        transport.write(b"hello")

    def connection_lost(self, _: Exception | None) -> None:
        self._strangers.leave(self._stranger)


class Full(socket.socket):
    """Listens, and has no file descriptor left for the next one."""

    num_full = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.num_full:
            self.num_full -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@contextmanager
def listening(
    places: int = 9, new: Allowance | None = None, let_in: list[Stranger] | None = None
) -> Iterator[tuple[Full, Strangers, Listener]]:
    def greet(stranger: Stranger) -> Greeter:
        if let_in is not None:
            let_in.append(stranger)
        return Greeter(stranger, strangers)

    with Full() as sock:
        sock.bind(("127.0.0.1", 0))
        strangers = Strangers(places)
        new = new or Allowance(1000, 1000)
        listener = Listener(sock, strangers, greet, new, None)
        yield sock, strangers, listener
        listener.close()


def come(to: socket.socket, host: str = "127.0.0.1") -> socket.socket:
    visitor = socket.create_connection(to.getsockname(), source_address=(host, 0))
    visitor.setblocking(False)
    return visitor


async def hear(visitor: socket.socket) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await asyncio.get_running_loop().sock_recv(visitor, 100)
        except ConnectionError:
            return b""


async def test_who_comes_is_let_in() -> None:
    with listening() as (sock, strangers, _), come(sock) as visitor:
        assert await hear(visitor) == b"hello"
        assert len(strangers) == 1


async def test_beyond_the_rate_they_wait_and_peers_take_turns() -> None:
    let_in = list[Stranger]()
    with ExitStack() as stack:
        sock, _, _ = stack.enter_context(listening(new=Allowance(per_s=20, at_once=1e-6), let_in=let_in))
        crowd = [stack.enter_context(come(sock)) for _ in range(6)]
        other = stack.enter_context(come(sock, "127.0.0.2"))
        began_s = asyncio.get_running_loop().time()
        assert [await hear(visitor) for visitor in (*crowd, other)] == [b"hello"] * 7
        assert asyncio.get_running_loop().time() - began_s >= 0.25
        assert [stranger.peer for stranger in let_in].index("127.0.0.2") <= 2  # though six came before it


async def test_who_waits_loses_its_place_to_who_comes_and_the_others_are_served_in_the_end() -> None:
    with ExitStack() as stack:
        sock, strangers, _ = stack.enter_context(listening(3, Allowance(per_s=20, at_once=1e-6)))
        visitors = [stack.enter_context(come(sock)) for _ in range(6)]
        heard = [await hear(visitor) for visitor in visitors]
        assert heard[-1] == b"hello"
        assert heard.count(b"") >= 2
        assert len(strangers) <= 3


async def test_where_the_system_has_no_room_somebody_else_is_cut_off() -> None:
    with listening() as (sock, strangers, _), come(sock) as first:
        assert await hear(first) == b"hello"
        sock.num_full = 1
        with come(sock) as second:
            assert await hear(second) == b"hello"
            assert await hear(first) == b""
            assert len(strangers) == 1


async def test_where_there_is_nobody_to_cut_off_the_listener_tries_again_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FULL_PAUSE_S", 0.02)
    with listening() as (sock, _, _):
        sock.num_full = 3
        with come(sock) as visitor:
            assert await hear(visitor) == b"hello"
    assert caplog.messages == ["no connection can be accepted: this process has too many files open"] * 3


@pytest.mark.parametrize("turns", range(3))
async def test_the_end_of_a_listener_ends_those_who_wait_and_those_about_to_be_let_in(turns: int) -> None:
    with ExitStack() as stack:
        sock, strangers, listener = stack.enter_context(listening(new=Allowance(per_s=0.01, at_once=0.02)))
        visitors = [stack.enter_context(come(sock)) for _ in range(5)]
        for _ in range(turns):
            await asyncio.sleep(0)
        listener.close()
        sock.close()
        for visitor in visitors:
            while await hear(visitor):
                pass
        await until(lambda: not len(strangers))
