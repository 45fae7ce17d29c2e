"""Keys' turns at what holds up all texts, in virtual time."""

import asyncio
import time

import pytest

from skydraft.gateway.turns import ABOUT_S, SAVED_S, SHARE, Turns
from tests.virtual_time import in_virtual_time

BUSY_S = 10.0


async def _take(turns: Turns, name: str, seconds: float) -> None:
    async with turns.turn(name):
        await asyncio.sleep(seconds)


async def _take_many(turns: Turns, name: str, seconds: float, begun_s: list[float]) -> None:
    while True:
        async with turns.turn(name):
            begun_s.append(time.monotonic())
            await asyncio.sleep(seconds)


def _seconds_since(began_s: float) -> float:
    return round(time.monotonic() - began_s, 2)  # each turn of the loop takes a little


async def _stay_about(turns: Turns, name: str) -> None:
    while True:
        turns.saw(name)
        await asyncio.sleep(ABOUT_S / 2)


def _turns(*names: str) -> Turns:
    turns = Turns()
    for name in names:
        turns.saw(name)
    return turns


@in_virtual_time
async def test_a_key_alone_waits_for_nothing() -> None:
    turns, began_s = _turns("one"), time.monotonic()
    for _ in range(5):
        await _take(turns, "one", 1.0)
    assert _seconds_since(began_s) == 5.0


@in_virtual_time
async def test_while_another_key_is_about_it_has_its_share_of_the_time() -> None:
    turns, begun_s = _turns("many", "other"), list[float]()
    tasks = [asyncio.create_task(_take_many(turns, "many", 0.02, begun_s)) for _ in range(8)]
    tasks.append(asyncio.create_task(_stay_about(turns, "other")))
    await asyncio.sleep(BUSY_S)
    for task in tasks:
        task.cancel()
    assert 0.02 * len(begun_s) == pytest.approx(SHARE * BUSY_S + SAVED_S, abs=0.04)


@in_virtual_time
async def test_requests_of_a_key_take_turns_and_those_of_others_do_not_wait_for_them() -> None:
    turns, began_s = _turns("many", "one"), time.monotonic()
    busy = [asyncio.create_task(_take(turns, "many", 1.0)) for _ in range(3)]
    await asyncio.sleep(0.5)
    await _take(turns, "one", 0.01)
    assert _seconds_since(began_s) == 0.51
    await asyncio.gather(*busy)
    assert _seconds_since(began_s) >= 3.0


@in_virtual_time
async def test_a_key_waits_no_more_when_the_others_have_gone() -> None:
    turns, began_s = _turns("many", "other"), time.monotonic()
    await _take(turns, "many", 0.9)  # 4.5 s of its share
    await _take(turns, "many", 0.0)
    assert _seconds_since(began_s) <= 0.9 + 2 * ABOUT_S


@in_virtual_time
async def test_what_it_took_while_it_was_alone_is_not_held_against_it() -> None:
    turns = _turns("many")
    await _take(turns, "many", 100.0)
    turns.saw("other")
    began_s = time.monotonic()
    await _take(turns, "many", 0.0)
    assert _seconds_since(began_s) == 0.0


@in_virtual_time
async def test_a_turn_that_is_given_up_while_it_waits_is_the_next_ones() -> None:
    turns, began_s = _turns("many"), time.monotonic()
    first, second, third = (asyncio.create_task(_take(turns, "many", 1.0)) for _ in range(3))
    await asyncio.sleep(0.1)
    second.cancel()
    await asyncio.gather(first, third)
    assert _seconds_since(began_s) == 2.0
