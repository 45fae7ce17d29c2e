"""Texts that are held up and let on, in every way to write: they stand still meanwhile, and are what they were."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from skydraft.core import Mode, Rank, TextPiece, tokens_of
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.job import Job
from skydraft.edge.patience import Patience
from skydraft.edge.report import Report
from skydraft.edge.text_pace import TextPace
from skydraft.edge.writer import Writer
from skydraft.engines.emulated.paced import Pace
from skydraft.policies.gate import NeverGate
from skydraft.policies.way import parse_way
from tests.edge.test_writer import DRAFT, JOB, TARGET, changed, ids
from tests.linked import cloud_only, table
from tests.virtual_cloud import in_pace, virtual_cloud
from tests.virtual_time import in_virtual_time

STILL_S = 10.0  # some hundred tokens' time
SETTLE_S = 1.0  # for what was under way


def _slow_cloud() -> AbstractAsyncContextManager[str]:
    return virtual_cloud(in_pace(table(TARGET), Pace(step_ms=30)))


class Text:
    """A text that is held up once it has some tokens, for a while; `lengths` has how long it was then, and after it."""

    def __init__(self, job: Job, engine: Any, still_s: float) -> None:
        self._still_s = still_s
        self.pace, self.num_tokens, self.lengths = TextPace(), 0, list[int]()
        self._job, self._engine = replace(job, pace=self.pace), engine
        self._holding: asyncio.Task[None] | None = None

    async def write(self) -> Report:
        writer = Writer(self._engine)
        try:
            report = await writer.write(self._job, self._grow)
        finally:
            writer.close()
        assert self._holding is not None
        await self._holding
        return report

    def _grow(self, pieces: Sequence[TextPiece]) -> None:
        self.num_tokens += len(tokens_of(pieces))
        if self.num_tokens >= 5 and self._holding is None:
            self.pace.hold_up()
            self._holding = asyncio.create_task(self._hold())

    async def _hold(self) -> None:
        await asyncio.sleep(SETTLE_S)
        self.lengths.append(self.num_tokens)
        await asyncio.sleep(self._still_s)
        self.lengths.append(self.num_tokens)
        self.pace.let_on()


async def _check(address: str | None, draft: str | None = DRAFT, still_s: float = STILL_S, **changes: Any) -> Report:
    """Write a text twice, held up and not; gives the report of the first."""
    sampling = structs.replace(JOB.sampling, max_tokens=60)
    job = changed(JOB, address=None if address is None else CloudAddress(address), sampling=sampling, **changes)
    text = Text(job, None if draft is None else in_pace(table(draft), Pace(step_ms=10)), still_s)
    report = await text.write()
    length, later = text.lengths
    assert length == later < len(report.tokens) == sampling.max_tokens
    writer = Writer(None if draft is None else table(draft))
    try:
        assert ids(report) == ids(await writer.write(job, lambda _: None))
    finally:
        writer.close()
    return report


@pytest.mark.parametrize("way", ["wait:5", "pipelined:3", "tree", "free", "auto", "cloud"])
@in_virtual_time
async def test_a_text_of_both(way: str) -> None:
    async with _slow_cloud() as address:
        await _check(address, way=parse_way(way))


@in_virtual_time
async def test_a_text_of_the_cloud() -> None:
    async with _slow_cloud() as address:
        await _check(address, draft=None, mode=Mode.CLOUD)


@in_virtual_time
async def test_a_text_of_the_device() -> None:
    await _check(None, mode=Mode.EDGE)


@in_virtual_time
async def test_a_text_that_is_judged_block_by_block() -> None:
    async with _slow_cloud() as address:
        await _check(address, rule=Rank(20), gate=NeverGate())


@pytest.mark.parametrize("still_s", [1.0, 1000.0])
@pytest.mark.parametrize("patience", [Patience("fail", 0), Patience("wait", 30), Patience("tunnel", 30, 0.25)])
@pytest.mark.parametrize("changes", [{"mode": Mode.CLOUD}, {"way": parse_way("free")}, {"way": parse_way("wait:3")}])
@in_virtual_time
async def test_it_is_no_matter_of_patience_however_long_it_takes(
    changes: dict[str, Any], patience: Patience, still_s: float
) -> None:
    async with _slow_cloud() as address:
        report = await _check(address, still_s=still_s, patience=patience, **changes)
    assert report.is_cloud_text
    assert not report.is_alone
    assert not report.reconnects


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.02, 0.05])
@pytest.mark.parametrize("changes", [{"mode": Mode.CLOUD}, {"way": parse_way("free")}, {"way": parse_way("cloud")}])
@in_virtual_time
async def test_a_text_that_is_held_up_before_its_first_token(changes: dict[str, Any], delay_s: float) -> None:
    pace, writer = TextPace(), Writer(table(DRAFT))
    async with _slow_cloud() as address:
        job = replace(changed(JOB, address=CloudAddress(address), **changes), pace=pace)
        writing = asyncio.create_task(writer.write(job, lambda _: None))
        await asyncio.sleep(delay_s)
        pace.hold_up()
        await asyncio.sleep(1000.0)
        pace.let_on()
        report = await writing
    writer.close()
    assert ids(report) == cloud_only(table(TARGET), job.sampling)


@in_virtual_time
async def test_a_text_that_is_held_up_when_it_begins() -> None:
    pace, pieces, writer = TextPace(), list[TextPiece](), Writer(table(DRAFT))
    pace.hold_up()
    async with _slow_cloud() as address:
        job = replace(changed(JOB, address=CloudAddress(address)), pace=pace)
        writing = asyncio.create_task(writer.write(job, pieces.extend))
        await asyncio.sleep(STILL_S)
        assert not pieces
        pace.let_on()
        assert len((await writing).tokens) == job.sampling.max_tokens
    writer.close()


@in_virtual_time
async def test_a_text_that_is_held_up_can_be_broken_off() -> None:
    pace, writer = TextPace(), Writer(table(DRAFT))
    async with _slow_cloud() as address:
        job = replace(changed(JOB, address=CloudAddress(address)), pace=pace)
        writing = asyncio.create_task(writer.write(job, lambda _: pace.hold_up()))
        await asyncio.sleep(STILL_S)
        assert pace.is_held_up
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    writer.close()
