"""What somebody sees of a connection who cannot look into it: how long frames are, and when they pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from skydraft.core import Draft, Exact, Mode, Rank, Rejection, ShareLevel
from skydraft.edge.border import DisclosureRecord
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.padded import PACE_S, PaddedConnection
from skydraft.edge.report import Report
from skydraft.edge.writer import Writer
from skydraft.engines.emulated.paced import Pace
from skydraft.errors import RemoteProtocolError
from skydraft.policies.gate import NeverGate
from skydraft.policies.way import chain
from skydraft.protocol import codec, offers, padding
from tests.edge.test_writer import DRAFT, JOB, TARGET, changed
from tests.linked import table
from tests.virtual_cloud import in_pace, virtual_cloud
from tests.virtual_time import in_virtual_time


class Seen(NamedTuple):
    """A frame. at_s: when it passed."""

    at_s: float
    frame: bytes


@asynccontextmanager
async def watched(url: str, up: list[Seen], down: list[Seen]) -> AsyncIterator[str]:
    """A relay in front of a cloud that writes down what passes."""

    async def carry(source: Any, target: Any, seen: list[Seen]) -> None:
        try:
            async for frame in source:
                seen.append(Seen(time.monotonic(), frame))
                await target.send(frame)
        except ConnectionClosed:
            pass

    async def relay(device: ServerConnection) -> None:
        async with connect(f"{url}/v1/session", compression=None) as cloud:
            await asyncio.wait(
                [asyncio.create_task(carry(device, cloud, up)), asyncio.create_task(carry(cloud, device, down))],
                return_when=asyncio.FIRST_COMPLETED,
            )

    async with serve(relay, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def write_to(url: str, step_ms: float = 0.1, **changes: Any) -> tuple[Report, list[Seen], list[Seen]]:
    up, down = list[Seen](), list[Seen]()
    writer = Writer(in_pace(table(DRAFT), Pace(step_ms=step_ms)))
    try:
        async with watched(url, up, down) as watch:
            job = changed(JOB, **{"address": CloudAddress(watch), "pad": True, **changes})
            return await writer.write(job, lambda _: None), up, down
    finally:
        writer.close()


async def write(**changes: Any) -> tuple[Report, list[Seen], list[Seen]]:
    async with virtual_cloud(table(TARGET)) as url:
        return await write_to(url, **changes)


WAYS_TO_WRITE = [{"mode": Mode.CLOUD}, {"rule": Rank(2)}, {"rule": Rejection()}, {"way": chain(5)}, {}]


@pytest.mark.parametrize("changes", WAYS_TO_WRITE, ids=["cloud", "rank", "rejection", "chains", "default"])
@in_virtual_time
async def test_padding_changes_no_text_and_shows_one_size_in_both_directions(changes: dict[str, Any]) -> None:
    plain, up, down = await write(pad=False, **changes)
    assert len({len(seen.frame) for seen in up + down}) > 3
    padded, up, down = await write(**changes)
    assert padded.text == plain.text
    assert {len(seen.frame) for seen in up + down} == {256}
    assert len(up) - 1 <= len(down) <= len(up)  # each frame is answered by one; the last may be by none


@in_virtual_time
async def test_offers_leave_at_a_fixed_pace_whether_there_are_any_or_not() -> None:
    gated = {"rule": Rank(2), "gate": NeverGate()}  # the device asks nobody
    for changes in ({"way": chain(5)}, gated):
        _, up, _ = await write(step_ms=10, **changes)
        pauses_s = [after.at_s - before.at_s for before, after in pairwise(up[:-1])]
        assert len(pauses_s) > 5
        assert pauses_s == [pytest.approx(PACE_S, abs=1e-3)] * len(pauses_s)


@in_virtual_time
async def test_a_frame_that_is_late_is_followed_at_the_pace_and_not_made_up_for() -> None:
    sent_s = list[float]()

    class Behind:
        """A connection that takes its third frame late."""

        async def send(self, data: bytes) -> None:
            sent_s.append(time.monotonic())
            await asyncio.sleep(3.5 * PACE_S if len(sent_s) == 3 else 0)

        async def close(self) -> None:
            pass

    connection: Any = Behind()
    padded = PaddedConnection(connection, DisclosureRecord(ShareLevel.TOKENS))
    await padded.send(b"")
    await asyncio.sleep(8 * PACE_S)
    await padded.close()
    pauses = [(after - before) / PACE_S for before, after in pairwise(sent_s)]
    assert pauses == [pytest.approx(num, abs=0.01) for num in (1, 1, 3.5, 1, 1)]


@in_virtual_time
async def test_the_record_tells_padding_from_what_is_said() -> None:
    plain, _, _ = await write(pad=False, way=chain(5))
    padded, up, down = await write(way=chain(5))
    record = padded.disclosure
    assert sum(record.up.values()) == 256 * len(up)
    assert 256 * (len(down) - 2) <= sum(record.down.values()) <= 256 * len(down)  # the last are not read any more
    assert min(record.up["padding"], record.down["padding"]) > 0
    assert record.up["prompt"] == plain.disclosure.up["prompt"]
    assert "padding" not in plain.disclosure.up


@in_virtual_time
async def test_a_cloud_that_does_not_pad_is_refused() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(b"\x91\x09")
        await socket.wait_closed()

    async with serve(handler, "127.0.0.1", 0) as server:
        with pytest.raises(RemoteProtocolError, match="on this connection frames are padded"):
            await write_to(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")


@in_virtual_time
async def test_a_padded_text_is_taken_up_again_after_a_cut() -> None:
    num_connections = 0

    async def relay(device: ServerConnection) -> None:
        nonlocal num_connections
        num_connections += 1
        is_first = num_connections == 1
        async with connect(f"{url}/v1/session", compression=None) as cloud:
            for _ in range(2 if is_first else 10_000):
                await cloud.send(await device.recv())
                await device.send(await cloud.recv())

    plain, _, _ = await write(pad=False, mode=Mode.CLOUD)
    async with virtual_cloud(table(TARGET)) as url, serve(relay, "127.0.0.1", 0, compression=None) as server:
        patience = JOB.patience._replace(offline="wait", wait_s=5)
        port = server.sockets[0].getsockname()[1]
        padded, _, _ = await write_to(f"ws://127.0.0.1:{port}", mode=Mode.CLOUD, patience=patience)
    assert padded.text == plain.text
    assert padded.reconnects == 1


def test_the_smallest_frame_has_room_for_the_largest_offer_of_a_usual_cloud() -> None:
    """64 nodes of a vocabulary of 152,000: else the size of an offer would tell how sure the device is."""
    offer = offers.to_wire(Draft.chain(1_000_000, (150_000,) * 64), 0, 152_000, Exact())
    assert len(codec.encode(offer)) + 40 + padding.LENGTH_BYTES + 1 <= padding.SIZES[0]  # 64! takes 37 bytes
