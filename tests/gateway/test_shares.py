"""Which texts of which keys are written at the same time, in virtual time."""

import asyncio
from contextlib import ExitStack

import pytest

from skydraft.edge.text_pace import TextPace
from skydraft.gateway.shares import ABOUT_S, Shares
from tests.virtual_time import in_virtual_time


def _begin(stack: ExitStack, shares: Shares, name: str, count: int) -> list[TextPace]:
    return [stack.enter_context(shares.text(name)) for _ in range(count)]


def _num_let_on(paces: list[TextPace]) -> int:
    """Those that began first are."""
    are_held_up = [pace.is_held_up for pace in paces]
    assert are_held_up == sorted(are_held_up)
    return are_held_up.count(False)


@in_virtual_time
async def test_a_key_alone_has_all_its_texts_written() -> None:
    with ExitStack() as stack:
        assert _num_let_on(_begin(stack, Shares(8), "one", 50)) == 50


@pytest.mark.parametrize(("num_keys", "share"), [(2, 4), (3, 2), (8, 1), (20, 1)])
@in_virtual_time
async def test_several_keys_have_as_many_each(num_keys: int, share: int) -> None:
    shares = Shares(8)
    with ExitStack() as stack:
        texts = [_begin(stack, shares, f"key {number}", 6) for number in range(num_keys)]
        assert [_num_let_on(of_key) for of_key in texts] == [share] * num_keys


@in_virtual_time
async def test_a_text_that_ends_lets_the_next_on() -> None:
    shares = Shares(2)
    with ExitStack() as others, shares.text("one"):
        with shares.text("many"):
            (second,) = _begin(others, shares, "many", 1)
            assert second.is_held_up
        assert not second.is_held_up


@in_virtual_time
async def test_a_key_whose_texts_have_ended_is_counted_a_little_longer() -> None:
    shares = Shares(4)
    with ExitStack() as stack:
        texts = _begin(stack, shares, "many", 6)
        for _ in range(5):
            with shares.text("one") as pace:
                assert not pace.is_held_up
                assert _num_let_on(texts) == 2
                await asyncio.sleep(0.1)
            await asyncio.sleep(ABOUT_S / 2)
            assert _num_let_on(texts) == 2
        await asyncio.sleep(ABOUT_S)
        assert _num_let_on(texts) == 6


@in_virtual_time
async def test_a_text_may_end_while_it_is_held_up() -> None:
    shares = Shares(2)
    with ExitStack() as stack, shares.text("one"):
        texts = _begin(stack, shares, "many", 3)
        assert _num_let_on(texts) == 1
        stack.close()
        with shares.text("many") as pace:
            assert not pace.is_held_up
