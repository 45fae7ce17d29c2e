from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.sampling import arrays
from skydraft.sampling.arrays import largest, largest_values, measure_tokens, row_blocks, some_largest, take_rows
from tests.sampling.helpers import ToArray
from tests.spy import spy_on

few_values = st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 2.0]), min_size=1, max_size=12).filter(
    lambda row: max(row) > -np.inf
)


@given(row=few_values, count=st.integers(1, 12))
def test_the_largest_come_first_and_of_equals_the_first(row: list[float], count: int) -> None:
    expected = sorted(range(len(row)), key=lambda i: (-row[i], i))[:count]
    values, indexes = largest(np.array([row, row[::-1]]), count)
    num_finite = sum(row[i] > -np.inf for i in expected)  # of -inf any may come
    assert indexes[0].tolist()[:num_finite] == expected[:num_finite]
    assert values[0].tolist() == [row[i] for i in expected] == values[1].tolist()


def test_the_largest_are_the_same_in_torch(to_array: ToArray) -> None:
    row = np.random.default_rng(0).integers(-5, 5, 1000).astype(np.float64)
    expected = sorted(range(1000), key=lambda i: (-row[i], i))[:250]
    assert largest(to_array(row[None]), 250)[1].tolist() == [expected]


def test_largest_values_come_largest_first(to_array: ToArray) -> None:
    x = np.random.default_rng(0).standard_normal((3, 50))
    assert largest_values(to_array(x), 7).tolist() == np.sort(x, axis=-1)[:, ::-1][:, :7].tolist()


LONG = np.random.default_rng(3).standard_normal((3, 20_011)).astype(np.float32)
LONG_ROWS = {
    "all different": LONG,
    "many equal": np.round(LONG),
    "all equal": np.zeros_like(LONG),
    "nearly all -inf": np.where(LONG > 3, LONG, -np.inf),
    "as many finite as are wanted": np.where(np.arange(LONG.shape[1]) % 400 == 7, LONG, -np.inf)[:, :20_000],
}


@pytest.mark.parametrize("count", [1, 2, 50, 256])
@pytest.mark.parametrize("kind", LONG_ROWS)
def test_the_largest_of_long_rows_are_those_of_a_sort(kind: str, count: int) -> None:
    rows = LONG_ROWS[kind]
    order = np.argsort(-rows, axis=-1, kind="stable")[:, :count]
    expected = np.take_along_axis(rows, order, axis=-1)
    for values, indexes in (largest(rows, count), some_largest(rows, count)):
        assert np.array_equal(values, expected)
        assert np.array_equal(np.where(values > -np.inf, indexes, -1), np.where(expected > -np.inf, order, -1))
        assert all(len(set(row)) == count for row in indexes.tolist())
    assert np.array_equal(largest_values(rows.reshape(3, 1, -1), count)[:, 0], expected)


def test_long_rows_are_not_partitioned(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take 20 to 100 times as long as reading them."""
    monkeypatch.setattr(np, "argpartition", None)
    sizes = spy_on(monkeypatch, np, "partition", lambda x, *args, **named: x.size)
    for rows in LONG_ROWS.values():
        largest(rows, 100)
    assert max(sizes) <= LONG.size / 4


@pytest.mark.parametrize("count", [1, 50])
def test_the_largest_of_a_long_row_with_nan_are_as_many_as_of_others(count: int) -> None:
    rows = np.where(np.arange(20_011) == 5, np.nan, LONG_ROWS["nearly all -inf"])
    rows[1] = np.nan
    assert largest(rows, count)[1].shape == (3, count)


@pytest.mark.parametrize("rows", [[0], [2, 3, 4], [0, 2, 4], [3, 1, 1]])
def test_rows_are_taken_in_the_order_asked(rows: list[int], to_array: ToArray) -> None:
    x = np.arange(10.0).reshape(5, 2)
    assert take_rows(to_array(x), rows).tolist() == x[rows].tolist()


@pytest.mark.parametrize("num_rows", [1, 4, 5, 9])
def test_blocks_cover_each_row_once_and_bound_their_size(num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_BLOCK_ELEMENTS", 40)
    blocks = list(row_blocks(np.zeros((num_rows, 10))))
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(num_rows))
    assert all(block.stop - block.start <= 4 for block in blocks)


def test_a_row_longer_than_a_block_is_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_BLOCK_ELEMENTS", 4)
    assert list(row_blocks(np.zeros((2, 10)))) == [slice(0, 1), slice(1, 2)]


def test_measures_are_the_same_for_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(1).standard_normal((6, 10))
    rows, token_ids = [0, 0, 3, 5], [1, 2, 3, 4]
    for elements in (1, 20, 1000):
        monkeypatch.setattr(arrays, "_BLOCK_ELEMENTS", elements)
        assert measure_tokens(arrays.at_indexes, x, rows, token_ids) == x[rows, token_ids].tolist()
    assert measure_tokens(arrays.at_indexes, x, [], []) == []
