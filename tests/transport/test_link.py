"""A link against its own settings: times in virtual time, what becomes of connections over real sockets."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import msgspec
import pytest

from skydraft.errors import TransportError
from skydraft.transport.link.link import Link, main
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings
from tests.virtual_time import in_virtual_time
from tests.waiting import PATIENCE_S, until

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.read(2**16):
            pass
    except ConnectionError:
        pass
    writer.close()


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[Address]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield Address(*server.sockets[0].getsockname()[:2])


@asynccontextmanager
async def linked(
    settings: LinkSettings, handler: Handler = echo
) -> AsyncIterator[tuple[Link, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with served(handler) as upstream, Link(upstream, settings) as link:
        reader, writer = await asyncio.open_connection(*link.address)
        yield link, reader, writer
        writer.close()


async def round_trip_ms(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes = b"x" * 24) -> float:
    begin_s = asyncio.get_running_loop().time()
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    return 1e3 * (asyncio.get_running_loop().time() - begin_s)


def about(time_ms: float) -> object:
    """Turns of the event loop take a little virtual time too."""
    return pytest.approx(time_ms, abs=1)


@in_virtual_time
async def test_round_trips_take_both_delays() -> None:
    settings = LinkSettings(PathSettings(delay_ms=15), PathSettings(delay_ms=25))
    async with linked(settings) as (_, reader, writer):
        await round_trip_ms(reader, writer)
        assert [await round_trip_ms(reader, writer) for _ in range(10)] == [about(40)] * 10


@in_virtual_time
async def test_a_link_without_settings_adds_nothing() -> None:
    async with linked(LinkSettings()) as (_, reader, writer):
        assert await round_trip_ms(reader, writer) == about(0)


@in_virtual_time
async def test_the_first_bytes_wait_for_the_handshake() -> None:
    settings = LinkSettings(PathSettings(delay_ms=20), PathSettings(delay_ms=20))
    async with linked(settings) as (_, reader, writer):
        assert [await round_trip_ms(reader, writer) for _ in range(2)] == [about(80), about(40)]


@in_virtual_time
async def test_delays_do_not_add_up_over_a_stream() -> None:
    settings = LinkSettings(PathSettings(delay_ms=30), PathSettings(delay_ms=30))
    async with linked(settings) as (_, reader, writer):
        await round_trip_ms(reader, writer)
        assert await round_trip_ms(reader, writer, bytes(200_000)) == about(60)  # 139 pieces of 1448 bytes


@in_virtual_time
async def test_jitter_spreads_round_trips() -> None:
    async with linked(LinkSettings(PathSettings(delay_ms=10, jitter_ms=10))) as (_, reader, writer):
        await round_trip_ms(reader, writer)
        times_ms = [await round_trip_ms(reader, writer) for _ in range(40)]
    assert min(times_ms) < 3
    assert 17 < max(times_ms) < 21


def test_each_direction_has_jitter_of_its_own_that_a_seed_repeats() -> None:
    path = PathSettings(delay_ms=10, jitter_ms=10)
    links = [Link(Address("127.0.0.1", 1), LinkSettings(path, path, seed)) for seed in (0, 0, 1)]
    shapers = [direction.shaper for link in links for direction in (link._passage.up, link._passage.down)]
    outs = [tuple(shaper.schedule(1, float(now)) for now in range(9)) for shaper in shapers]
    assert outs[:2] == outs[2:4]
    assert len(set(outs)) == 4


@pytest.mark.parametrize("rate_mbps", [4.0, 40.0])
@in_virtual_time
async def test_throughput_is_the_rate(rate_mbps: float) -> None:
    settings = LinkSettings(PathSettings(rate_mbps=rate_mbps))
    num_bytes = int(rate_mbps * 1e6 / 8 * 0.4)
    async with linked(settings) as (link, reader, writer):
        time_ms = await round_trip_ms(reader, writer, bytes(num_bytes))
        assert link.carried.up_bytes == link.carried.down_bytes == num_bytes
    assert time_ms == pytest.approx(400, rel=0.02)


@in_virtual_time
async def test_connections_share_the_rate() -> None:
    async with served(echo) as upstream, Link(upstream, LinkSettings(PathSettings(rate_mbps=8))) as link:
        pairs = [await asyncio.open_connection(*link.address) for _ in range(3)]
        times_ms = await asyncio.gather(*(round_trip_ms(*pair, data=bytes(100_000)) for pair in pairs))
        assert max(times_ms) == pytest.approx(300, rel=0.02)
        assert link.carried.num_connections == 3
        for _, writer in pairs:
            writer.close()


@in_virtual_time
async def test_a_slow_link_makes_the_sender_wait() -> None:
    settings = LinkSettings(PathSettings(rate_mbps=0.1, queue_bytes=20_000))
    async with linked(settings, swallow) as (_, _, writer):
        writer.write(bytes(2_000_000))
        await asyncio.sleep(1)
        assert writer.transport.get_write_buffer_size() > 1_500_000


@in_virtual_time
async def test_a_receiver_that_does_not_read_makes_the_sender_wait() -> None:
    async def sleep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(4)
        await echo(reader, writer)

    data = bytes(5_000_000)
    async with linked(LinkSettings(), sleep) as (link, reader, writer):
        writer.write(data)
        await asyncio.sleep(3)
        assert link.carried.up_bytes < 1_000_000
        assert await reader.readexactly(len(data)) == data


@in_virtual_time
async def test_a_freeze_holds_everything_and_loses_nothing() -> None:
    async with linked(LinkSettings(freeze_after_s=0.05, freeze_s=0.4)) as (_, reader, writer):
        await round_trip_ms(reader, writer)
        await asyncio.sleep(0.1)
        assert await round_trip_ms(reader, writer) == about(350)


@in_virtual_time
async def test_a_freeze_holds_what_is_inside() -> None:
    async with linked(LinkSettings(PathSettings(delay_ms=50))) as (link, reader, writer):
        await round_trip_ms(reader, writer)
        held = asyncio.create_task(round_trip_ms(reader, writer))
        await asyncio.sleep(0.02)
        link.freeze(0.2)
        assert await held == about(220)


async def test_a_cut_resets_both_sides_and_later_connections_pass() -> None:
    errors = []

    async def notice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await echo_once(reader, writer)
            await reader.read()
        except ConnectionResetError as error:
            errors.append(error)
        writer.close()

    async def echo_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(24))

    async with linked(LinkSettings(), notice) as (link, reader, writer):
        await round_trip_ms(reader, writer)
        link.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        await until(lambda: errors)
        again = await asyncio.open_connection(*link.address)
        await round_trip_ms(*again)
        again[1].close()


@in_virtual_time
async def test_a_cut_refuses_new_connections_for_a_while() -> None:
    async with linked(LinkSettings(cut_after_s=0.05, refuse_s=0.2)) as (link, reader, writer):
        await round_trip_ms(reader, writer)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        refused = await asyncio.open_connection(*link.address)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await round_trip_ms(*refused)
        await asyncio.sleep(0.25)
        again = await asyncio.open_connection(*link.address)
        await round_trip_ms(*again)
        assert link.carried.num_connections == 2
        for _, each_writer in (refused, again):
            each_writer.close()


@pytest.mark.parametrize("num_bytes", [1234, 2000])
async def test_a_cut_after_bytes_is_exact_and_happens_once(num_bytes: int) -> None:
    received = bytearray()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                received.extend(data)
        except ConnectionResetError:
            pass
        writer.close()

    async with linked(LinkSettings(cut_after_bytes=num_bytes), keep) as (link, reader, writer):
        writer.write(bytes(1000))
        await until(lambda: len(received) == 1000)
        writer.write(bytes(1000))
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        await until(lambda: len(received) >= num_bytes)
        assert (len(received), link.carried.up_bytes) == (num_bytes, num_bytes)
        _, again = await asyncio.open_connection(*link.address)
        again.write(bytes(5000))
        await until(lambda: link.carried.up_bytes == num_bytes + 5000)
        again.close()


@in_virtual_time
async def test_settings_change_while_it_runs() -> None:
    async with linked(LinkSettings()) as (link, reader, writer):
        assert await round_trip_ms(reader, writer) == about(0)
        link.apply(LinkSettings(PathSettings(delay_ms=40)))
        assert await round_trip_ms(reader, writer) == about(40)
        link.apply(LinkSettings())
        assert await round_trip_ms(reader, writer) == about(0)


@in_virtual_time
async def test_the_end_of_a_stream_arrives_after_its_bytes() -> None:
    async with linked(LinkSettings(PathSettings(delay_ms=30), PathSettings(delay_ms=30))) as (link, reader, writer):
        await round_trip_ms(reader, writer)
        begin_s = asyncio.get_running_loop().time()
        writer.write(b"last words")
        writer.write_eof()
        assert await reader.read() == b"last words"
        assert 1e3 * (asyncio.get_running_loop().time() - begin_s) == about(60)
        await asyncio.sleep(0.01)
        assert not link._pairs


async def test_the_end_of_a_stream_towards_a_client_that_is_gone_is_no_error_and_ends_the_connection() -> None:
    """A client that said its end is not read any more: that it went away after it is found out by writing to it."""
    is_gone, errors = asyncio.Event(), []

    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await is_gone.wait()
        writer.write(b"too late")  # is answered by a reset
        await writer.drain()
        await until(lambda: link.carried.down_bytes == len(b"too late"))
        writer.close()

    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with linked(LinkSettings(down=PathSettings(delay_ms=5)), answer_late) as (link, _, writer):
        writer.write_eof()
        writer.close()
        await writer.wait_closed()
        is_gone.set()
        await until(lambda: not link._pairs)
    assert errors == []


async def test_a_client_that_breaks_off_is_felt_upstream() -> None:
    is_there, felt = asyncio.Event(), asyncio.Event()

    async def feel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_there.set()
        try:
            await reader.read()
        except ConnectionResetError:
            felt.set()
        writer.close()

    async with linked(LinkSettings(PathSettings(delay_ms=10)), feel) as (_, _, writer):
        await is_there.wait()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()
        await felt.wait()


async def test_an_upstream_that_is_not_there_resets_the_client() -> None:
    async with served(echo) as gone:
        pass
    async with Link(gone) as link:
        reader, writer = await asyncio.open_connection(*link.address)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()


async def test_a_port_that_is_taken_is_a_sentence() -> None:
    async with served(echo) as taken:
        with pytest.raises(TransportError, match=f"cannot listen on 127.0.0.1:{taken.port}"):
            await Link(taken, listen=taken).__aenter__()


# On its own


async def start(*arguments: str) -> tuple[asyncio.subprocess.Process, Address]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "skydraft.transport.link.link", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    said = (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode()
    return process, Address.parse(said.split()[-1])


async def test_the_process_obeys_flags_and_standard_input_and_says_what_it_carried() -> None:
    async with served(echo) as upstream:
        process, address = await start(
            *("--upstream", f"127.0.0.1:{upstream.port}", "--delay-ms", "10", "--down-delay-ms", "30", "--control")
        )
        reader, writer = await asyncio.open_connection(*address)
        await round_trip_ms(reader, writer)
        assert await round_trip_ms(reader, writer) >= 40
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"nonsense\n" + msgspec.json.encode(LinkSettings(PathSettings(delay_ms=70))) + b"\n")
        num_round_trips = 3
        while await round_trip_ms(reader, writer) < 70:  # until it has read the line
            num_round_trips += 1
        writer.close()
        process.terminate()
        said = (await process.stdout.read()).decode()
        num_bytes = 24 * num_round_trips
        assert said == f"link carried {num_bytes} bytes up, {num_bytes} down, 1 connections\n"
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--upstream", "nowhere"], "address 'nowhere' is not HOST:PORT"),
        (["--upstream", "h:1", "--delay-ms", "-5"], "delay_ms is -5.0"),
    ],
)
def test_wrong_flags_are_a_sentence(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert complaint in capsys.readouterr().err


@in_virtual_time
async def test_a_stream_flows_and_does_not_come_in_one_lump() -> None:
    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(150_000))
        await writer.drain()
        writer.close()

    async with linked(LinkSettings(down=PathSettings(rate_mbps=4)), stream) as (_, reader, _):
        arrivals = []
        while await reader.read(2**16):
            arrivals.append(asyncio.get_running_loop().time())
    gaps = [after - before for before, after in pairwise(arrivals)]
    assert sum(gap > 0 for gap in gaps) > 10
    assert max(gaps) < sum(gaps) / 2
