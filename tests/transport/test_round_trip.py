"""Pings over the device's end of a connection."""

import asyncio

import pytest

from skydraft.errors import TransportError
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings
from skydraft.transport.websocket import connect
from tests.transport.test_websocket import cloud, connected, port_of
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_round_trip_takes_the_delays_of_both_ways() -> None:
    ways = LinkSettings(PathSettings(delay_ms=20), PathSettings(delay_ms=30))
    async with cloud() as server, Link(Address("127.0.0.1", port_of(server)), ways) as link:
        connection = await connect(f"127.0.0.1:{link.address.port}")
        assert [await connection.round_trip_s() for _ in range(3)] == [pytest.approx(0.05, abs=1e-3)] * 3
        await connection.close()


async def test_messages_and_pings_pass_each_other() -> None:
    async with connected() as connection:
        await connection.send(b"before")
        assert await connection.round_trip_s() > 0
        assert await connection.receive() == b"before"


@in_virtual_time
async def test_a_ping_without_an_answer_ends_in_time() -> None:
    async with cloud() as server, Link(Address("127.0.0.1", port_of(server))) as link:
        connection = await connect(f"127.0.0.1:{link.address.port}")
        link.freeze(5.0)
        begin_s = asyncio.get_running_loop().time()
        with pytest.raises(TransportError, match="has not answered a ping within 0.1 s"):
            await connection.round_trip_s(timeout_s=0.1)
        assert asyncio.get_running_loop().time() - begin_s == pytest.approx(0.1, abs=1e-3)
        link.cut()
        await connection.close()


@in_virtual_time
async def test_a_lost_connection_is_told_as_such() -> None:
    async with cloud() as server, Link(Address("127.0.0.1", port_of(server))) as link:
        connection = await connect(f"127.0.0.1:{link.address.port}")
        link.freeze(5.0)
        pinging = asyncio.create_task(connection.round_trip_s())
        await asyncio.sleep(0.05)
        link.cut()
        with pytest.raises(TransportError, match="is lost"):
            await pinging
