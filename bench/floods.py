"""Peers that ask for more of a cloud's time, places or memory than is theirs: each floods it in one way, without end.

`bench.fuzz` runs each in a process of its own beside an honest device. All is bounded: bytes a second, connections at
once, and the time that `run_flood` is given.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import NamedTuple

from websockets.frames import Frame, Opcode

from bench.fuzz_frames import upgrade_request
from skydraft.core import Draft, Exact, LatticeDistribution, Prompt, Rejection, SamplingParams, TokenSegment
from skydraft.engines.load import load_engine
from skydraft.errors import LocalProtocolError
from skydraft.protocol import codec, messages, offers, packing, padding, segments
from skydraft.protocol.limits import MAX_TEXT_TOKENS

MODEL = "table:vocab=1024,seed=3,order=1"  # large enough for distributions that take long to decode
BYTES_PER_S = 1_000_000.0
PIECE_BYTES = 2**14
NUM_SILENT = 1100  # more than a cloud with default settings once had room for
NUM_PARALLEL = 32
NUM_HALF, HALF_BYTES = 40, 2**23 - 2**10  # frames that are never finished: 320 MiB together
PAUSE_S = 0.02  # before a connection that was cut comes again
CONNECT_S = 10.0
ADDRESS = "127.0.0.2"  # of the attacker, which Linux has on loopback too: another peer than the device


class Target(NamedTuple):
    """What is flooded. key: of the attacker."""

    host: str
    port: int
    key: str


async def drip(target: Target, hello: bytes, data: bytes, bytes_per_s: float = BYTES_PER_S, first: bytes = b"") -> None:
    """Send `hello` and `first` once and `data` again and again, over one connection at a time.

    An upgrade is waited for before what is first.
    """
    while True:
        with suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=(ADDRESS, 0))
            writer.write(hello)
            if b"Upgrade" in hello:
                await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            reading = asyncio.create_task(read_all(reader))
            try:
                piece = data * max(1, PIECE_BYTES // len(data))
                while not reading.done():
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(len(piece) / bytes_per_s)
            finally:
                reading.cancel()
                writer.transport.abort()
        await asyncio.sleep(PAUSE_S)


async def read_all(reader: asyncio.StreamReader) -> None:
    """Take what comes, to the end."""
    with suppress(OSError):
        while await reader.read(2**16):
            pass


# Without a key


async def _chunks(target: Target) -> None:
    head = b"POST /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    await drip(target, head, b"1\r\nx\r\n")


async def _requests(target: Target) -> None:
    await drip(target, b"", b"GET /healthz HTTP/1.1\r\nHost:x\r\n\r\n")


async def _heads(target: Target) -> None:
    """Requests of as many headers as fit, one over each connection."""
    head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"a:\r\n" * 4000 + b"\r\n"
    await come_and_go(target, head, PIECE_BYTES / BYTES_PER_S)


async def _newcomers(target: Target) -> None:
    """Connections that ask one thing and go, as fast as NUM_PARALLEL of them can."""
    request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with asyncio.TaskGroup() as group:
        for _ in range(NUM_PARALLEL):
            group.create_task(come_and_go(target, request, 0.0))


async def come_and_go(target: Target, request: bytes, pause_s: float) -> None:
    """Ask one thing over a connection, again and again."""
    while True:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=(ADDRESS, 0))
                try:
                    writer.write(request)
                    await reader.read(2**12)
                finally:
                    writer.transport.abort()
        await asyncio.sleep(pause_s)


async def silent(target: Target) -> None:
    """Connections that say nothing, not even hello to TLS; each that is cut comes again."""
    async with asyncio.TaskGroup() as group:
        for _ in range(NUM_SILENT):
            group.create_task(_stay_silent(target))
            await asyncio.sleep(0.001)


async def _stay_silent(target: Target) -> None:
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=(ADDRESS, 0))
            try:
                await reader.read()
            finally:
                writer.transport.abort()
        await asyncio.sleep(1.0)


# With a key


def _frames(opcode: Opcode, data: bytes = b"", fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


async def _pings(target: Target) -> None:
    await drip(target, upgrade_request(target.key), _frames(Opcode.PING))


async def _pongs(target: Target) -> None:
    await drip(target, upgrade_request(target.key), _frames(Opcode.PONG))


async def _close_frames(target: Target) -> None:
    await drip(target, upgrade_request(target.key), _frames(Opcode.CLOSE))


async def _fragments(target: Target) -> None:
    first, rest = _frames(Opcode.BINARY, b"x", fin=False), _frames(Opcode.CONT, fin=False)
    await drip(target, upgrade_request(target.key), rest, first=first)


async def _messages(target: Target) -> None:
    """The smallest messages that there are, about sessions that are not open."""
    message = _frames(Opcode.BINARY, codec.encode(messages.Close(0)))
    await drip(target, upgrade_request(target.key), message)


async def _covers(target: Target) -> None:
    """Padded frames without messages, each of which is answered by one."""
    await drip(target, upgrade_request(target.key), _frames(Opcode.BINARY, padding.pack(deque())))


async def _many(target: Target) -> None:
    """Pings and messages over as many connections as a key has."""
    async with asyncio.TaskGroup() as group:
        for _ in range(NUM_PARALLEL):
            group.create_task(_pings(target))
            group.create_task(_messages(target))


async def _half_frames(target: Target) -> None:
    """Frames of which the last bytes never come."""
    async with asyncio.TaskGroup() as group:
        for _ in range(NUM_HALF):
            group.create_task(_send_half(target))


async def _send_half(target: Target) -> None:
    data = _frames(Opcode.BINARY, bytes(HALF_BYTES))[:-1]
    with suppress(OSError, EOFError):  # once: they are large
        reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=(ADDRESS, 0))
        try:
            writer.write(upgrade_request(target.key))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
            await read_all(reader)
        finally:
            writer.transport.abort()
    await asyncio.Event().wait()


async def _distributions(target: Target) -> None:
    """Offers of as many distributions as fit, which take as long to decode as any may."""
    rule, rng = Rejection(256, 65536), Random(0)
    supports = [tuple(sorted(rng.sample(range(_num_ids()), 256))) for _ in range(16)]
    for num_tokens in range(16, 0, -1):
        some = tuple(LatticeDistribution(support, _weights(rng)) for support in supports[:num_tokens])
        draft = Draft.chain(0, tuple(support[-1] for support in supports[:num_tokens]), distributions=some)
        with suppress(LocalProtocolError):
            await _send_offers(target, rule, codec.encode(offers.to_wire(draft, 0, _num_ids(), rule)))


def _weights(rng: Random) -> tuple[int, ...]:
    """256 that are 65,536 together."""
    bars = sorted(rng.sample(range(1, 65536), 255))
    return tuple(after - before for before, after in pairwise((0, *bars, 65536)))


async def _forced(target: Target) -> None:
    """Offers that force more tokens than a text may have."""
    ids = packing.pack((1,) * MAX_TEXT_TOKENS, packing.id_bits(_num_ids()))
    await _send_offers(target, Exact(), codec.encode(messages.Offer(0, ids, 0, MAX_TEXT_TOKENS)), BYTES_PER_S)


def _num_ids() -> int:
    return load_engine(MODEL, "target").vocabulary.num_tokens


async def _send_offers(target: Target, rule: Rejection | Exact, offer: bytes, bytes_per_s: float = 300_000.0) -> None:
    mark = messages.VocabularyMark.of(load_engine(MODEL, "target").vocabulary)
    prompt = segments.to_wire(Prompt((TokenSegment((1, 2, 3)),)), packing.id_bits(mark.num_tokens))
    text = SamplingParams(max_tokens=4000)
    opening = codec.encode(messages.Open(messages.PROTOCOL_VERSION, 0, mark, text, str(rule), prompt))
    first = _frames(Opcode.BINARY, opening)
    await drip(target, upgrade_request(target.key), _frames(Opcode.BINARY, offer), bytes_per_s, first)


FLOODS: dict[str, Callable[[Target], Awaitable[None]]] = {
    "chunks": _chunks,
    "requests": _requests,
    "heads": _heads,
    "newcomers": _newcomers,
    "silent": silent,
    "pings": _pings,
    "pongs": _pongs,
    "close_frames": _close_frames,
    "fragments": _fragments,
    "messages": _messages,
    "covers": _covers,
    "many": _many,
    "half_frames": _half_frames,
    "distributions": _distributions,
    "forced": _forced,
}
TLS_FLOODS = ("silent", "newcomers")  # these are also sent to a cloud with TLS, of which they say nothing


async def for_a_while(flood: Awaitable[None], seconds: float) -> None:
    """Flood until the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await flood


def run_flood(name: str, target: Target, seconds: float) -> None:
    """Flood for a while."""
    asyncio.run(for_a_while(FLOODS[name](target), seconds))
