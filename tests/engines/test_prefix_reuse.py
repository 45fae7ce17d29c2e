"""Where a prompt may be cut for others that begin alike: the same tokens are cut alike, whatever follows."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from skydraft.engines.base import LEAST_FIRST_PIECE, LEAST_PIECE, PrefixReuse

CLOSING = frozenset({1, 2})
ids = st.lists(st.integers(0, 9), max_size=200)
units = st.integers(1, 70)


@given(ids, ids, units)
def test_what_follows_moves_no_end(some: list[int], more: list[int], unit: int) -> None:
    reuse = PrefixReuse(unit, CLOSING)
    before = list(reuse.ends(some))
    assert list(reuse.ends([*some, *more]))[: len(before)] == before


@given(ids, units)
def test_a_piece_is_whole_or_ends_with_a_message_and_is_not_short(token_ids: list[int], unit: int) -> None:
    ends = [0, *PrefixReuse(unit, CLOSING).ends(token_ids)]
    for begin, end in pairwise(ends):
        least = LEAST_PIECE if begin else LEAST_FIRST_PIECE
        assert end - begin == unit or (unit > end - begin >= least and token_ids[end - 1] in CLOSING)
    rest = token_ids[ends[-1] :]
    assert len(rest) < unit
    assert not CLOSING.intersection(rest[LEAST_PIECE - 1 :])


def test_without_messages_pieces_are_all_of_one_size() -> None:
    assert list(PrefixReuse(20).ends([1] * 70)) == [20, 40, 60]
    assert list(PrefixReuse().ends([7, 8, 9])) == [1, 2, 3]


def test_messages_end_pieces() -> None:
    short, first, long = [5] * 9 + [1], [5] * 19 + [1], [6] * 35 + [2]
    reuse = PrefixReuse(64, CLOSING)
    assert list(reuse.ends([*short, *long, *short, *short, *[7] * 64])) == [46, 110]
    assert list(reuse.ends([*first, *first, *short, *first, *short])) == [20, 70]
    assert list(reuse.ends([*first, *long, *short])) == [20, 56]
