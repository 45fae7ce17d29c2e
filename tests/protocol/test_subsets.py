import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.protocol.subsets import rank_subset, unrank_subset


@pytest.mark.parametrize(("universe", "size"), [(7, 0), (7, 1), (7, 3), (7, 7), (12, 5), (20, 2)])
def test_subsets_are_numbered_without_gaps(universe: int, size: int) -> None:
    subsets = list(itertools.combinations(range(universe), size))
    assert sorted(map(rank_subset, subsets)) == list(range(math.comb(universe, size)))
    assert all(unrank_subset(rank_subset(subset), size) == subset for subset in subsets)


@pytest.mark.parametrize(("universe", "size"), [(151_936, 8), (151_936, 256), (300, 256), (71, 7), (2**24, 64), (9, 9)])
def test_first_and_last_subset_have_first_and_last_number(universe: int, size: int) -> None:
    last = math.comb(universe, size) - 1
    assert rank_subset(range(size)) == 0
    assert unrank_subset(0, size) == tuple(range(size))
    assert rank_subset(range(universe - size, universe)) == last
    assert unrank_subset(last, size) == tuple(range(universe - size, universe))


@given(st.data())
def test_every_number_comes_back(data: st.DataObject) -> None:
    universe, size = data.draw(st.integers(1, 2**24)), data.draw(st.integers(1, 64))
    rank = data.draw(st.integers(0, max(0, math.comb(universe, size) - 1)))
    subset = unrank_subset(rank, size)
    assert rank_subset(subset) == rank
    assert all(a < b for a, b in itertools.pairwise(subset))
    assert size > universe or subset[-1] < universe
