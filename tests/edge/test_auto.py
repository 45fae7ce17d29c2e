"""Mode auto against a cloud whose pace changes: every way to write tells it, and it comes back from the device."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from skydraft.core import Exact, MinProb, Mode, Objective, Origin, Prompt, Rank, Rejection, SamplingParams
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.report import Report
from skydraft.edge.writer import Writer
from skydraft.engines.base import Engine, Extension
from skydraft.engines.emulated.paced import Pace
from skydraft.policies.estimates import Estimates
from skydraft.policies.way import parse_way
from tests.edge.test_writer import DRAFT, JOB, TARGET, changed
from tests.engines.operations import whole_prompts
from tests.linked import table
from tests.virtual_cloud import in_pace, virtual_cloud
from tests.virtual_time import in_virtual_time

SLOW_S, FAST_S = 0.25, 0.002  # four tokens a second are fewer than people read


class Weather:
    """A model whose passes take as long as it is told."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.pass_s = FAST_S
        self.prompt_s = 0.0

    def open(self, prompt: Prompt) -> Any:
        time.sleep(self.prompt_s)
        return self._engine.open(prompt)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def extend(self, extensions: Sequence[Extension]) -> Any:
        time.sleep(self.pass_s)
        return self._engine.extend(extensions)


class Texts:
    """Of one device with one cloud, one after the other. weather: the cloud's."""

    def __init__(self, url: str, weather: Weather) -> None:
        self.weather = weather
        self._writer = Writer(in_pace(table(DRAFT), Pace(step_ms=1)))
        self._job = replace(JOB, address=CloudAddress(url))

    async def write(self, mode: Mode, num_tokens: int = 40, **changes: Any) -> Report:
        sampling = SamplingParams(temperature=0.8, seed=3, max_tokens=num_tokens)
        job = changed(self._job, mode=mode, sampling=sampling, **changes)
        return await self._writer.write(job, lambda _: None)

    @property
    def estimates(self) -> Estimates:
        (planner,) = self._writer._planners._known.values()
        return planner.estimates

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def with_a_cloud() -> AsyncIterator[Texts]:
    weather = Weather(whole_prompts(table(TARGET)))
    async with virtual_cloud(cast(Engine, weather)) as url:
        texts = Texts(url, weather)
        yield texts
        texts.close()


async def after_a_slow_spell(texts: Texts, **changes: Any) -> None:
    """What was learnt is that the device is fast and the cloud slower than people read."""
    await texts.write(Mode.EDGE, 8, **changes)
    for _ in range(10):
        texts.estimates.verify_s.observe(1, 3.0)


@in_virtual_time
async def test_auto_comes_back_from_the_device_when_the_cloud_is_fast_again() -> None:
    async with with_a_cloud() as texts:
        await after_a_slow_spell(texts)
        first, second = [await texts.write(Mode.AUTO) for _ in range(2)]
        assert 16 <= first.num_by_origin[Origin.EDGE] <= 40  # a look comes after 16, and the text does not wait for it
        assert second.num_by_origin[Origin.EDGE] == 0


@in_virtual_time
async def test_auto_comes_back_within_a_long_text() -> None:
    async with with_a_cloud() as texts:
        await after_a_slow_spell(texts)
        origins = [token.origin for token in (await texts.write(Mode.AUTO, 1000)).tokens]
        assert origins[0] is Origin.EDGE
        assert origins[-1] is not Origin.EDGE


@in_virtual_time
async def test_a_prompt_that_takes_long_to_read_is_not_taken_for_a_slow_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_a_cloud() as texts:
        monkeypatch.setattr("skydraft.edge.measuring.LOOK_S", 0.2)
        await after_a_slow_spell(texts)
        texts.weather.prompt_s = 0.4
        assert (await texts.write(Mode.AUTO, 1000)).tokens[-1].origin is not Origin.EDGE


@in_virtual_time
async def test_a_cloud_that_stays_slow_costs_a_text_no_more_than_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_a_cloud() as texts:
        monkeypatch.setattr("skydraft.edge.measuring.LOOK_S", 0.3)
        await after_a_slow_spell(texts)
        texts.weather.pass_s = SLOW_S
        reports = [await texts.write(Mode.AUTO, 32) for _ in range(3)]
        assert all(report.num_by_origin[Origin.EDGE] == 32 for report in reports)
        assert all(report.total_s < SLOW_S + 0.3 + 0.05 for report in reports)  # the prompt, the look, the text
        # After 16 tokens and after 32 more; what a look sends is recorded as all that leaves is.
        assert [report.disclosure.contents["instruction text"] for report in reports] == [1, 1, 0]
        assert texts.estimates.verify_s.at(1) == pytest.approx(3.0)


@in_virtual_time
async def test_nobody_looks_where_nothing_is_to_leave() -> None:
    async with with_a_cloud() as texts:
        await after_a_slow_spell(texts, objective=Objective.PRIVACY)
        report = await texts.write(Mode.AUTO, objective=Objective.PRIVACY)
        assert report.num_by_origin[Origin.EDGE] == 40
        assert not report.disclosure.up


@pytest.mark.parametrize(
    "how",
    [
        {"mode": Mode.CLOUD},
        *({"mode": Mode.HYBRID, "way": parse_way(way)} for way in ("wait:5", "pipelined:3", "prepared:4", "tree")),
        *({"mode": Mode.HYBRID, "way": parse_way(way)} for way in ("free", "auto", "cloud")),
        *({"mode": Mode.HYBRID, "rule": rule} for rule in (Rank(1), MinProb(0.2), Rejection(4, 16))),
    ],
    ids=str,
)
@in_virtual_time
async def test_every_way_to_write_with_a_cloud_tells_its_pace(how: dict[str, Any]) -> None:
    async with with_a_cloud() as texts:
        texts.weather.pass_s = 0.04
        await texts.write(num_tokens=24, **how)
        assert texts.estimates.round_trip_s is not None
        assert texts.estimates.verify_s.is_seen
        assert texts.estimates.verify_s.at(1) == pytest.approx(0.04, rel=0.1)


@pytest.mark.parametrize(
    "how",
    [
        {"mode": Mode.EDGE},
        {"mode": Mode.HYBRID, "rule": Exact()},
        {"mode": Mode.HYBRID, "rule": Rank(20)},
        {"mode": Mode.HYBRID, "rule": Rejection(4, 16)},
    ],
    ids=str,
)
@in_virtual_time
async def test_every_way_to_draft_tells_the_pace_of_the_device(how: dict[str, Any]) -> None:
    async with with_a_cloud() as texts:
        await texts.write(num_tokens=30, **how)
        assert texts.estimates.draft_s.is_seen
        assert texts.estimates.draft_s.at(1) == pytest.approx(0.001, rel=0.1)
