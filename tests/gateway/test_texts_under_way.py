"""Which texts of which keys are written at the same time, in virtual time."""

import asyncio
from contextlib import ExitStack

import pytest

from skydraft.edge.text_pace import TextPace
from skydraft.gateway.texts_under_way import ABOUT_S, TextsUnderWay
from tests.virtual_time import in_virtual_time


def _begin(stack: ExitStack, under_way: TextsUnderWay, name: str, count: int) -> list[TextPace]:
    return [stack.enter_context(under_way.text(name)) for _ in range(count)]


def _num_let_on(paces: list[TextPace]) -> int:
    """Those that began first are."""
    are_held_up = [pace.is_held_up for pace in paces]
    assert are_held_up == sorted(are_held_up)
    return are_held_up.count(False)


@in_virtual_time
async def test_a_key_alone_has_all_its_texts_written() -> None:
    with ExitStack() as stack:
        assert _num_let_on(_begin(stack, TextsUnderWay(8), "one", 50)) == 50


@pytest.mark.parametrize(("num_keys", "each"), [(2, {4}), (3, {2, 3}), (8, {1}), (20, {1})])
@in_virtual_time
async def test_several_keys_have_as_many_each(num_keys: int, each: set[int]) -> None:
    under_way = TextsUnderWay(8)
    with ExitStack() as stack:
        texts = [_begin(stack, under_way, f"key {number}", 6) for number in range(num_keys)]
        nums = list(map(_num_let_on, texts))
    assert set(nums) == each
    assert sum(nums) == max(8, num_keys)


@in_virtual_time
async def test_what_a_key_leaves_over_goes_to_the_others() -> None:
    under_way = TextsUnderWay(8)
    with ExitStack() as stack:
        few, many, more = (_begin(stack, under_way, name, num) for name, num in (("a", 1), ("b", 9), ("c", 9)))
        assert [_num_let_on(texts) for texts in (few, many, more)] == [1, 3, 4]


@in_virtual_time
async def test_a_text_that_ends_lets_the_next_on() -> None:
    under_way = TextsUnderWay(2)
    with ExitStack() as others, under_way.text("one"):
        with under_way.text("many"):
            (second,) = _begin(others, under_way, "many", 1)
            assert second.is_held_up
        assert not second.is_held_up


@in_virtual_time
async def test_a_key_whose_texts_have_ended_is_counted_a_little_longer() -> None:
    under_way = TextsUnderWay(4)
    with ExitStack() as stack:
        texts = _begin(stack, under_way, "many", 6)
        for _ in range(5):
            with under_way.text("one") as pace:
                assert not pace.is_held_up
                assert _num_let_on(texts) == 3
                await asyncio.sleep(0.1)
            await asyncio.sleep(ABOUT_S / 2)
            assert _num_let_on(texts) == 3
        await asyncio.sleep(ABOUT_S)
        assert _num_let_on(texts) == 6


@in_virtual_time
async def test_a_text_may_end_while_it_is_held_up() -> None:
    under_way = TextsUnderWay(2)
    with ExitStack() as stack, under_way.text("one"):
        texts = _begin(stack, under_way, "many", 3)
        assert _num_let_on(texts) == 1
        stack.close()
        with under_way.text("many") as pace:
            assert not pace.is_held_up
