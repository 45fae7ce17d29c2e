"""Floods: that each of them sends what it says, at a peer that takes everything, and what is made of the times."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from bench import flooded, floods, gateway_floods
from bench.flooded import Flooded
from bench.floods import FLOODS, TLS_FLOODS, Target
from tests.waiting import until


class Victim:
    """Says that everybody has come in, and counts."""

    def __init__(self) -> None:
        self.num_connections = 0
        self.num_ended = 0
        self.num_bytes = 0
        self.is_hit = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        with suppress(OSError):
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\ndata: {}\n\n")
            while data := await reader.read(2**16):
                self.num_bytes += len(data)
                if self.num_bytes > 5000:
                    self.is_hit.set()
        writer.transport.abort()
        self.num_ended += 1


async def attacked(make: Callable[[Target], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> Victim:
    """A flood until it is felt. The silent ones are felt by their number."""
    victim = Victim()
    for module in (floods, gateway_floods):
        monkeypatch.setattr(module, "NUM_SILENT", 50)
        monkeypatch.setattr(module, "NUM_HALF", 2)
    async with await asyncio.start_server(victim.serve, "127.0.0.1", 0) as server:
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1], "key")
        flood = asyncio.ensure_future(make(target))
        try:
            await until(lambda: victim.is_hit.is_set() or victim.num_connections >= 40)
        finally:
            flood.cancel()
            await asyncio.gather(flood, return_exceptions=True)
            await until(lambda: victim.num_ended == victim.num_connections)
    return victim


# A flood is broken off wherever it is, as by the end of its process.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("make", [*FLOODS.values(), *gateway_floods.FLOODS.values()])
async def test_every_flood_sends_bytes_or_connections(
    make: Callable[[Target], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = await attacked(make, monkeypatch)
    assert victim.is_hit.is_set() or victim.num_connections >= 40


def test_the_floods_that_tls_changes_are_floods() -> None:
    assert set(TLS_FLOODS) <= FLOODS.keys()


def test_the_claim_is_of_the_worst_flood_and_a_text_that_failed_spoils_all() -> None:
    mild = Flooded("mild", [1.0, 1.0, 3.0], [1.5, 1.5, 9.0], [], 10**6)
    harsh = Flooded("harsh", [1.0], [2.5], [], 3 * 10**6)
    values = {claim.claim: claim.value for claim in flooded.claims([mild, harsh])}
    assert values == {
        "slowdown_mild": 1.5,
        "slowdown_harsh": 2.5,
        "honest_slowdown_max": 2.5,
        "honest_texts_failed": 0,
        "flooded_memory_mb": 3.0,
    }
    assert flooded.is_good([mild])
    assert not flooded.is_good([mild, harsh])
    assert not flooded.is_good([mild._replace(errors=["it broke off"])])
