"""The time of keys for what holds up all texts, in virtual time."""

import asyncio
import time

import pytest

from skydraft.gateway.preparation_time import ABOUT_S, SAVED_S, SHARE, PreparationTime
from tests.virtual_time import in_virtual_time

BUSY_S = 10.0


async def _take(preparation_time: PreparationTime, name: str, seconds: float) -> None:
    async with preparation_time.of(name):
        await asyncio.sleep(seconds)


async def _take_many(preparation_time: PreparationTime, name: str, seconds: float, begun_s: list[float]) -> None:
    while True:
        async with preparation_time.of(name):
            begun_s.append(time.monotonic())
            await asyncio.sleep(seconds)


def _seconds_since(began_s: float) -> float:
    return round(time.monotonic() - began_s, 2)  # each turn of the loop takes a little


async def _stay_about(preparation_time: PreparationTime, name: str) -> None:
    while True:
        preparation_time.saw(name)
        await asyncio.sleep(ABOUT_S / 2)


def _seen(*names: str) -> PreparationTime:
    preparation_time = PreparationTime()
    for name in names:
        preparation_time.saw(name)
    return preparation_time


@in_virtual_time
async def test_requests_of_a_key_alone_are_prepared_side_by_side() -> None:
    preparation_time, began_s = _seen("one"), time.monotonic()
    await asyncio.gather(*(_take(preparation_time, "one", 1.0) for _ in range(5)))
    assert _seconds_since(began_s) == 1.0


@in_virtual_time
async def test_a_key_with_a_request_under_way_is_about_however_long_it_takes() -> None:
    preparation_time, began_s = PreparationTime(lambda: ["other"]), time.monotonic()
    preparation_time.saw("many")
    for _ in range(3):
        await _take(preparation_time, "many", SAVED_S)
    assert _seconds_since(began_s) == pytest.approx(2 * SAVED_S + SAVED_S / SHARE, abs=0.01)


@in_virtual_time
async def test_while_another_key_is_about_it_has_its_share_of_the_time() -> None:
    preparation_time, begun_s = _seen("many", "other"), list[float]()
    tasks = [asyncio.create_task(_take_many(preparation_time, "many", 0.02, begun_s)) for _ in range(8)]
    tasks.append(asyncio.create_task(_stay_about(preparation_time, "other")))
    await asyncio.sleep(BUSY_S)
    for task in tasks:
        task.cancel()
    assert 0.02 * len(begun_s) == pytest.approx(SHARE * BUSY_S + SAVED_S, abs=0.04)


@in_virtual_time
async def test_requests_of_a_key_take_turns_and_those_of_others_do_not_wait_for_them() -> None:
    preparation_time, began_s = _seen("many", "one"), time.monotonic()
    busy = [asyncio.create_task(_take(preparation_time, "many", 1.0)) for _ in range(3)]
    await asyncio.sleep(0.5)
    await _take(preparation_time, "one", 0.01)
    assert _seconds_since(began_s) == 0.51
    await asyncio.gather(*busy)
    assert _seconds_since(began_s) >= 3.0


@in_virtual_time
async def test_a_key_waits_no_more_when_the_others_have_gone() -> None:
    preparation_time, began_s = _seen("many", "other"), time.monotonic()
    await _take(preparation_time, "many", 0.9)  # 4.5 s of its share
    await _take(preparation_time, "many", 0.0)
    assert _seconds_since(began_s) <= 0.9 + 2 * ABOUT_S


@in_virtual_time
async def test_what_it_took_while_it_was_alone_is_not_held_against_it() -> None:
    preparation_time = _seen("many")
    await _take(preparation_time, "many", 100.0)
    preparation_time.saw("other")
    began_s = time.monotonic()
    await _take(preparation_time, "many", 0.0)
    assert _seconds_since(began_s) == 0.0


@in_virtual_time
async def test_who_gives_up_while_it_waits_keeps_nobody() -> None:
    preparation_time, began_s = _seen("many", "other"), time.monotonic()
    first, second, third = (asyncio.create_task(_take(preparation_time, "many", SAVED_S / 2)) for _ in range(3))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.gather(first, third)
    assert _seconds_since(began_s) == SAVED_S
