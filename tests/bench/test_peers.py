"""What bench.peers counts of a stream, and which texts it calls equal; the peers themselves are not here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from bench.peers.__main__ import PeerRow, grouped, num_equal
from bench.peers.servers import ALONE
from bench.peers.streaming import pieces, stream_text
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address

BODY = ["Once", " upon", "", " a time"]


def row(name: str, text: str, number: int = 30, round_trip_ms: float = 0.0) -> PeerRow:
    return PeerRow(name, round_trip_ms, "chat", number, 4, 9.0, 0.5, 100, 200, 0.0, text)


async def lines(*events: str) -> AsyncIterator[str]:
    for event in events:
        yield event


def event(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'text': text}]})}"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"}")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    for text in BODY:
        writer.write(f"{event(text)}\n\n".encode())
    writer.write(b"data: [DONE]\n\n")
    await writer.drain()
    writer.close()


async def test_of_a_stream_the_texts_are_read() -> None:
    read = [piece async for piece in pieces(lines(": ping", event("a"), "", event(""), event("b"), "data: [DONE]"))]
    assert read == ["a", "b"]


@pytest.mark.parametrize(
    ("num_tokens", "text", "counts"), [(9, "Once upon a time", [1, 1, 2]), (2, "Once upon", [1, 1])]
)
async def test_a_text_is_counted_in_tokens_as_it_comes_and_crosses_the_link(
    num_tokens: int, text: str, counts: list[int]
) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    upstream = Address(*server.sockets[0].getsockname()[:2])
    async with server, Link(upstream) as link, httpx.AsyncClient(trust_env=False) as client:
        got = await stream_text(client, f"http://{link.address}", "Tell", num_tokens, lambda text: len(text.split()))
        assert link.carried.up_bytes > 0
    assert (got[0], got[1].counts) == (text, counts)
    assert got[1].times_s == sorted(got[1].times_s)


def test_a_text_is_as_alone_where_one_of_the_two_begins_with_the_other() -> None:
    rows = [row(ALONE, "a b c"), row("x", "a b"), row("y", "a b c d"), row("z", "a c"), row("z", "a b", number=31)]
    assert [num_equal(some, rows) for some in grouped(rows).values()] == [1, 1, 1, 0]


def test_rows_of_a_round_trip_stand_together() -> None:
    rows = [row("x", "", round_trip_ms=50.0), row("x", ""), row("x", "", number=31)]
    assert [(key[0], len(some)) for key, some in grouped(rows).items()] == [(0.0, 2), (50.0, 1)]
