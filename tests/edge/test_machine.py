import importlib.util
import itertools
import os
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from skydraft.edge import machine
from skydraft.edge.machine import Machine, Speed, drafting_capacity, look_at_machine, measure_speed
from skydraft.engines import accelerator
from skydraft.engines.accelerator import Accelerator


class Battery(NamedTuple):
    """As psutil tells of one."""

    percent: float
    secsleft: int
    power_plugged: bool | None


PLAIN = Machine("Linux x86_64", 2, 0.1, 16 * 10**9, 8 * 10**9, None, True, None)
SPEED = Speed(memory_bytes_per_s=20e9, matmul_s=0.02, accelerator_bytes_per_s=None)
TICK_S = 0.004
GPU = Accelerator("Some GPU", "cuda", 80 * 10**9, 70 * 10**9)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LOOK_S", 0.01)
    monkeypatch.setattr(machine, "MEASURE_S", 0.01)
    monkeypatch.setattr(accelerator, "MATRIX_BYTES", 2**20)


def test_the_facts_are_those_of_this_machine() -> None:
    facts = look_at_machine()
    assert 1 <= facts.num_cores <= (psutil.cpu_count() or 0)
    assert 0 < facts.free_memory_bytes <= facts.memory_bytes == psutil.virtual_memory().total
    assert 0 <= facts.busy_share <= 1


@pytest.mark.parametrize(
    ("battery", "share", "is_plugged"),
    [
        (None, None, True),
        (Battery(55.0, 100, False), 0.55, False),
        (Battery(100.4, -1, True), 1.0, True),
        (Battery(30, -1, None), 0.3, False),
    ],
)
def test_a_battery_is_told_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, battery: Battery | None, share: float | None, is_plugged: bool
) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    facts = look_at_machine()
    assert (facts.battery_share, facts.is_plugged) == (share, is_plugged)


def test_a_system_that_knows_no_batteries_and_no_affinity_has_facts_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(psutil, "sensors_battery", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    facts = look_at_machine()
    assert facts.battery_share is None
    assert facts.num_cores == os.cpu_count()


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is timed takes TICK_S."""
    clock = SimpleNamespace(perf_counter=itertools.count(0, TICK_S).__next__)
    for module in (machine, accelerator):
        monkeypatch.setattr(module, "time", clock)


@pytest.mark.usefixtures("ticking")
def test_speeds_are_bytes_read_and_multiplications_in_the_time_they_take() -> None:
    speed = measure_speed(PLAIN)
    assert speed.memory_bytes_per_s == pytest.approx(machine.MATRIX_BYTES / TICK_S)
    assert speed.matmul_s == pytest.approx(TICK_S)
    assert speed.accelerator_bytes_per_s is None


@pytest.mark.usefixtures("ticking")
def test_an_accelerator_is_measured_where_it_is() -> None:
    speed = measure_speed(replace(PLAIN, accelerator=replace(GPU, device="cpu")))
    assert speed.accelerator_bytes_per_s == pytest.approx(accelerator.MATRIX_BYTES / TICK_S)


def test_without_torch_there_is_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert accelerator.find_accelerator() is None


def test_drafting_is_limited_by_the_accelerator_where_there_is_one() -> None:
    fast = replace(SPEED, accelerator_bytes_per_s=2e12)
    plain = drafting_capacity(PLAIN, SPEED)
    assert (plain.memory_bytes_per_s, plain.free_memory_bytes, plain.is_accelerator) == (20e9, 8 * 10**9, False)
    gpu = drafting_capacity(replace(PLAIN, accelerator=GPU), fast)
    assert (gpu.memory_bytes_per_s, gpu.free_memory_bytes, gpu.is_accelerator) == (2e12, 70 * 10**9, True)
    shared = drafting_capacity(replace(PLAIN, accelerator=replace(GPU, free_memory_bytes=None)), fast)
    assert shared.free_memory_bytes == PLAIN.free_memory_bytes


@pytest.mark.parametrize(
    ("share", "is_plugged", "is_on_battery"), [(None, True, False), (0.5, True, False), (0.5, False, True)]
)
def test_only_a_battery_that_is_not_charged_is_to_be_spared(
    share: float | None, is_plugged: bool, is_on_battery: bool
) -> None:
    facts = replace(PLAIN, battery_share=share, is_plugged=is_plugged)
    assert drafting_capacity(facts, SPEED).is_on_battery is is_on_battery
