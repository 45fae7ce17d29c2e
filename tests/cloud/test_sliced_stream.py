"""What stands between a transport and a protocol, without sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from skydraft.cloud.limits import sliced_stream as module
from skydraft.cloud.limits import strangers
from skydraft.cloud.limits.allowance import Allowance
from skydraft.cloud.limits.sliced_stream import (
    KEY_SAVED_S,
    MAX_REQUEST_BYTES,
    SAVED_S,
    SLICE_BYTES,
    SlicedStream,
    UnfinishedMessages,
)
from skydraft.cloud.limits.strangers import Stranger, Strangers
from tests.virtual_time import VirtualLoop, in_virtual_time
from tests.waiting import until


class Transport(asyncio.Transport):
    """Notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.is_reading_now = True
        self.is_aborted = False

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_aborted


class Reader(asyncio.Protocol):
    """Takes what comes. work: done for each piece."""

    def __init__(self, work: Any = lambda: None) -> None:
        self.pieces: list[bytes] = []
        self.work = work
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self.work()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


def compute(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.compute(seconds)


class Line:
    """A stream between the two. key: with which it has come in; None: it is a stranger's."""

    def __init__(self, key: str | None = "phone", unfinished: UnfinishedMessages | None = None, **kinds: Any) -> None:
        self.reader, self.transport = Reader(kinds.get("work", lambda: None)), Transport()
        strangers, stranger = Strangers(9), Stranger("peer", lambda: None)
        strangers.enter(stranger)
        times = kinds.get("times", {})
        self.stream = SlicedStream(self.reader, stranger, strangers, times, unfinished or UnfinishedMessages(2**20))
        self.stream.connection_made(self.transport)
        if key is not None:
            self.stream.admit(key)


async def turns(num: int) -> None:
    for _ in range(num):
        await asyncio.sleep(0)


@in_virtual_time
async def test_a_large_piece_comes_in_slices_and_whole() -> None:
    line = Line()
    sent = bytes(range(256)) * 100
    line.stream.data_received(sent)
    await until(lambda: line.reader.data == sent)
    assert {len(piece) for piece in line.reader.pieces[:-1]} == {SLICE_BYTES}
    assert line.transport.is_reading_now


@in_virtual_time
async def test_others_have_their_turn_between_slices_that_take_long() -> None:
    line = Line(work=lambda: compute(2 * module.TURN_S))
    seen: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: seen.append(len(line.reader.pieces)))
    line.stream.data_received(bytes(10 * SLICE_BYTES))
    assert len(line.reader.pieces) == 1
    assert not line.transport.is_reading_now  # what the peer sends meanwhile stays with its system
    await turns(1)
    assert seen == [1]
    await turns(3)
    assert len(line.reader.pieces) > 1


@pytest.mark.parametrize("is_small", [False, True])
@in_virtual_time
async def test_who_has_used_its_time_waits_and_loses_nothing(is_small: bool) -> None:
    line = Line()
    line.stream.charge(SAVED_S + 0.005)
    pieces = [bytes([number]) * (1 if is_small else 2 * SLICE_BYTES) for number in range(5)]
    for piece in pieces:
        line.stream.data_received(piece)
    await turns(20)
    assert line.reader.pieces == []
    assert not line.transport.is_reading_now
    await until(lambda: line.reader.data == b"".join(pieces))
    assert line.transport.is_reading_now


@in_virtual_time
async def test_the_connections_of_a_key_share_its_time_and_those_of_others_do_not() -> None:
    times: dict[str, Allowance] = {}
    busy = Line(times=times, work=lambda: compute(KEY_SAVED_S + 0.01))
    busy.stream.data_received(b"x")
    same, other = Line(times=times), Line("laptop", times=times)
    for line in (same, other):
        line.stream.data_received(b"x")
    assert (same.reader.data, other.reader.data) == (b"", b"x")
    await until(lambda: same.reader.data == b"x")


@in_virtual_time
async def test_a_protocol_that_pauses_gets_no_more_and_the_rest_when_it_goes_on() -> None:
    line = Line()
    line.reader.work = line.stream.pause_reading
    line.stream.data_received(bytes(3 * SLICE_BYTES))
    await turns(5)
    assert len(line.reader.pieces) == 1
    assert not line.transport.is_reading_now
    line.reader.work = lambda: None
    line.stream.resume_reading()
    await turns(5)
    assert len(line.reader.data) == 3 * SLICE_BYTES
    assert line.transport.is_reading_now


@in_virtual_time
async def test_another_protocol_gets_what_comes_after_the_first() -> None:
    line, second = Line(), Reader()
    line.reader.work = lambda: line.stream.set_protocol(second)
    line.stream.data_received(bytes(2 * SLICE_BYTES))
    await turns(5)
    assert (len(line.reader.data), len(second.data)) == (SLICE_BYTES, SLICE_BYTES)


@in_virtual_time
async def test_a_stranger_that_sends_more_than_a_request_is_cut_off() -> None:
    line, device = Line(key=None), Line()
    for _ in range(MAX_REQUEST_BYTES // 2**10):
        for each in (line, device):
            each.stream.data_received(bytes(2**10))
    await turns(5)
    assert not line.transport.is_aborted
    for each in (line, device):
        each.stream.data_received(b"x")
    assert (line.transport.is_aborted, device.transport.is_aborted) == (True, False)


@in_virtual_time
async def test_who_is_done_with_what_it_came_in_for_is_a_stranger_again() -> None:
    line = Line()
    assert line.stream.has_come_in
    line.stream.part(KEY_SAVED_S + 0.01)
    assert not line.stream.has_come_in
    for _ in range(MAX_REQUEST_BYTES // 2**10):
        line.stream.data_received(bytes(2**10))
    assert not line.transport.is_aborted
    line.stream.data_received(b"x")
    assert line.transport.is_aborted
    slow = Line()
    slow.stream.part(0.0)
    await asyncio.sleep(strangers.STRANGER_S + 1)
    assert slow.transport.is_aborted


@in_virtual_time
async def test_what_it_came_in_for_is_taken_from_its_keys_time() -> None:
    times: dict[str, Allowance] = {}
    busy, same = Line(times=times), Line(times=times)
    busy.stream.part(KEY_SAVED_S + 0.01)
    same.stream.data_received(b"x")
    assert same.reader.data == b""
    await until(lambda: same.reader.data == b"x")


@in_virtual_time
async def test_what_comes_after_it_waits_for_its_keys_time_too() -> None:
    times: dict[str, Allowance] = {}
    busy, done = Line(times=times), Line(times=times)
    done.stream.part(0.0)
    busy.stream.part(KEY_SAVED_S + 0.01)
    done.stream.data_received(b"x")
    assert done.reader.data == b""
    await until(lambda: done.reader.data == b"x")


@in_virtual_time
async def test_a_connection_that_is_lost_gets_nothing_more() -> None:
    line = Line(work=lambda: compute(2 * module.TURN_S))
    line.stream.data_received(bytes(10 * SLICE_BYTES))
    line.stream.connection_lost(None)
    await turns(5)
    assert (len(line.reader.pieces), line.reader.is_lost) == (1, True)


# What is unfinished


@pytest.fixture
def unfinished(monkeypatch: pytest.MonkeyPatch) -> UnfinishedMessages:
    """Of four messages of 100 bytes."""
    monkeypatch.setattr(module, "MIN_UNFINISHED_BYTES", 0)
    return UnfinishedMessages(100)


@in_virtual_time
async def test_the_key_that_holds_most_loses_the_connection_of_which_nothing_came_for_longest(
    unfinished: UnfinishedMessages,
) -> None:
    modest = Line("modest", unfinished)
    modest.stream.hold(90)
    greedy = [Line("greedy", unfinished) for _ in range(3)]
    for line in greedy:
        line.stream.hold(90)
    greedy[0].stream.hold(100)
    assert not any(line.transport.is_aborted for line in (modest, *greedy))
    greedy[2].stream.hold(150)
    assert [line.transport.is_aborted for line in (modest, *greedy)] == [False, False, True, False]


@in_virtual_time
async def test_messages_that_came_to_their_end_and_lost_connections_hold_nothing(
    unfinished: UnfinishedMessages,
) -> None:
    for number in range(10):
        line = Line("phone", unfinished)
        line.stream.hold(100)
        assert not line.transport.is_aborted
        if number % 2:
            line.stream.hold(0)
        else:
            line.stream.connection_lost(None)
    assert unfinished._num_bytes == 0


@in_virtual_time
async def test_two_messages_of_any_size_that_is_taken_may_be_under_way() -> None:
    large = UnfinishedMessages(2**30)
    lines = [Line("phone", large) for _ in range(2)]
    for line in lines:
        line.stream.hold(2**30)
    assert not any(line.transport.is_aborted for line in lines)
