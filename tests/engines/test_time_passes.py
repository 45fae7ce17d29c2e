"""What an engine's passes take, measured in virtual time."""

from __future__ import annotations

import pytest

from skydraft.core import PassTimes
from skydraft.engines.base import EngineLimits
from skydraft.engines.emulated.paced import Pace
from skydraft.engines.emulated.table_spec import load_table
from skydraft.engines.time_passes import time_passes
from tests.linked import table
from tests.virtual_cloud import in_pace
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_step_and_each_further_node_are_timed() -> None:
    engine = in_pace(table("table:vocab=8,seed=1"), Pace(step_ms=30, node_ms=4, prompt_ms=100))
    assert time_passes(engine) == PassTimes(pytest.approx(0.03), pytest.approx(0.004))  # type: ignore[arg-type]


@in_virtual_time
async def test_no_slot_stays_open() -> None:
    engine = in_pace(load_table("table:vocab=8,seed=1", EngineLimits(1, 64)), Pace(step_ms=1))
    assert time_passes(engine) is not None
    assert time_passes(engine) is not None


def test_an_engine_without_room_for_a_block_is_not_timed_and_keeps_no_slot() -> None:
    engine = load_table("table:vocab=8,seed=1", EngineLimits(1, 12))
    for _ in range(2):
        assert time_passes(engine) is None
