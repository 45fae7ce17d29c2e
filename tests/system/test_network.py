"""A device, a link that misbehaves and a cloud of stated pace: the text stays right, and the speed comes back.

In virtual time: speeds are the same on every machine.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import pytest

from skydraft.core import Mode, Origin, SamplingParams, TextPiece, tokens_of
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.job import Job
from skydraft.edge.patience import Patience
from skydraft.edge.report import Report
from skydraft.edge.writer import Writer
from skydraft.engines.emulated.paced import Pace
from skydraft.policies.way import parse_way
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings
from tests.edge.test_writer import JOB, changed
from tests.linked import cloud_only, table
from tests.virtual_cloud import in_pace, virtual_cloud
from tests.virtual_time import in_virtual_time

TARGET = "table:vocab=64,seed=5,sharpness=3"
DRAFT = "table:vocab=64,seed=5,sharpness=3,noise=0.5"
STEP_MS, DRAFT_MS = 20, 4
SAMPLING = SamplingParams(temperature=0.8, seed=3, max_tokens=800)
PATIENCE = Patience("wait", 30.0)


def link_of(round_trip_ms: float, jitter_ms: float = 0.0) -> LinkSettings:
    path = PathSettings(delay_ms=round_trip_ms / 2, jitter_ms=jitter_ms)
    return LinkSettings(up=path, down=path)


class Written(NamedTuple):
    """A text, when its tokens came (seconds from the first) and in how many messages."""

    report: Report
    arrivals: list[tuple[float, int]]

    def tokens_per_s(self, begin_s: float, end_s: float) -> float:
        return sum(num for at_s, num in self.arrivals if begin_s <= at_s < end_s) / (end_s - begin_s)


Trouble = Callable[[Link], Awaitable[None]]


async def write(settings: LinkSettings, trouble: Trouble | None = None, **changes: object) -> Written:
    writer = Writer(in_pace(table(DRAFT), Pace(step_ms=DRAFT_MS, node_ms=0.05)))
    arrivals: list[tuple[float, int]] = []
    begun_s = time.monotonic()

    def note(pieces: Sequence[TextPiece]) -> None:
        arrivals.append((time.monotonic() - begun_s, len(tokens_of(pieces))))

    async with (
        virtual_cloud(in_pace(table(TARGET), Pace(step_ms=STEP_MS, node_ms=0.05))) as url,
        Link(Address.parse(url.removeprefix("ws://")), settings) as link,
    ):
        address = CloudAddress(f"ws://{link.address}")
        job: Job = changed(JOB, sampling=SAMPLING, vocabulary=table(TARGET).vocabulary, patience=PATIENCE)
        troubling = None if trouble is None else asyncio.create_task(_later(trouble, link))
        try:
            report = await writer.write(changed(job, address=address, **changes), note)
        finally:
            writer.close()
            if troubling is not None:
                await troubling
    return Written(report, arrivals)


async def _later(trouble: Trouble, link: Link) -> None:
    await asyncio.sleep(1.5)
    await trouble(link)


def ids(report: Report) -> list[int]:
    return [token.token_id for token in report.tokens]


def expected() -> list[int]:
    return cloud_only(table(TARGET), SAMPLING)


@in_virtual_time
async def test_hybrid_is_faster_than_the_cloud_alone_over_a_link_of_50_ms() -> None:
    sampling = replace_tokens(200)
    together = await write(link_of(50), sampling=sampling)
    alone = await write(link_of(50), sampling=sampling, mode=Mode.CLOUD)
    assert ids(together.report) == ids(alone.report) == cloud_only(table(TARGET), sampling)
    assert together.report.num_by_origin[Origin.ACCEPTED] > 50
    assert together.report.total_s < alone.report.total_s / 1.15


def replace_tokens(max_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.8, seed=3, max_tokens=max_tokens)


@in_virtual_time
async def test_a_link_that_freezes_for_five_seconds_delays_the_text_and_no_more() -> None:
    async def freeze(link: Link) -> None:
        link.freeze(5.0)

    written = await write(link_of(20), freeze)
    assert ids(written.report) == expected()
    assert_speed_returns(written, first_s=1.4, back_s=6.6)


@in_virtual_time
async def test_a_lost_connection_is_taken_up_again() -> None:
    async def cut(link: Link) -> None:
        link.cut(refuse_s=0.5)

    written = await write(link_of(20), cut)
    assert ids(written.report) == expected()
    assert written.report.reconnects == 1
    assert_speed_returns(written, first_s=1.4, back_s=2.1)


@in_virtual_time
async def test_a_link_that_becomes_slow_and_fast_again_is_followed() -> None:
    async def wander(link: Link) -> None:
        link.apply(link_of(200))
        await asyncio.sleep(2.0)
        link.apply(link_of(20))

    written = await write(link_of(20), wander)
    assert ids(written.report) == expected()
    assert_speed_returns(written, first_s=1.4, back_s=3.6)


def assert_speed_returns(written: Written, first_s: float, back_s: float) -> None:
    """Ten answers after all is well again the text grows nearly as fast as before."""
    before = written.tokens_per_s(0.3, first_s)
    back = list(itertools.islice((at_s for at_s, _ in written.arrivals if at_s >= back_s), 11))
    assert len(back) == 11, f"the text was complete at {written.arrivals[-1][0]:.1f} s"
    end_s = written.arrivals[-1][0]
    assert end_s - back[-1] > 0.5, "too little was left to measure"
    assert written.tokens_per_s(back[-1], end_s) > 0.7 * before


@in_virtual_time
async def test_jitter_changes_nothing_but_time() -> None:
    sampling = replace_tokens(120)
    for way in ("free", "pipelined:4", "tree"):
        written = await write(link_of(40, jitter_ms=15), sampling=sampling, way=parse_way(way))
        assert ids(written.report) == cloud_only(table(TARGET), sampling)


@in_virtual_time
async def test_offline_edge_writes_on_alone_and_comes_back_to_the_cloud() -> None:
    async def cut(link: Link) -> None:
        link.cut(refuse_s=0.3)

    written = await write(link_of(20), cut, patience=Patience("edge", 0.0))
    origins = [token.origin for token in written.report.tokens]
    assert written.report.is_alone
    first_alone = origins.index(Origin.EDGE)
    assert Origin.ACCEPTED in origins[:first_alone]
    last_alone = len(origins) - 1 - origins[::-1].index(Origin.EDGE)
    assert set(origins[last_alone + 1 :]) & {Origin.ACCEPTED, Origin.CORRECTED, Origin.CLOUD}
    assert ids(written.report)[:first_alone] == expected()[:first_alone]


@pytest.mark.parametrize("mode", [Mode.AUTO])
@in_virtual_time
async def test_auto_writes_the_clouds_text_where_the_cloud_sees_all(mode: Mode) -> None:
    sampling = replace_tokens(120)
    written = await write(link_of(20), sampling=sampling, mode=mode)
    assert ids(written.report) == cloud_only(table(TARGET), sampling)
