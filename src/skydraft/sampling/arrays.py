"""What numpy and torch do not share through the array API standard, and how rows are cut into blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array

Array: TypeAlias = Any  # a numpy array or a torch tensor: what the array API standard describes and no type spells

Item = TypeVar("Item")

_SMALL_ELEMENTS = 2**20  # beyond, the threads of torch gain more
_LEAST_COLUMNS = 2**11  # in which long rows are read
_BLOCK_ELEMENTS = 2**22  # of float64 32 MB: what one step of a computation holds, however many rows there are


def to_float64(x: Array) -> Array:
    """The same values with 64 bits: every float that a model computes in is exact in them."""
    xp = array_namespace(x)
    return xp.astype(x, xp.float64, copy=False)


def integers_like(values: Sequence[int], like: Array) -> Array:
    """int64 [len(values)] in the library and on the device of `like`."""
    xp = array_namespace(like)
    return xp.asarray(list(values), dtype=xp.int64, device=device(like))


def largest_values(x: Array, count: int) -> Array:
    """The `count` largest of the last axis, largest first: [..., count]; count is 1 to that axis' length."""
    if is_torch_array(x):
        return x.topk(count, dim=-1).values
    if _is_few(count, x.shape[-1]):
        values, _ = _few_largest(np.reshape(x, (-1, x.shape[-1])), count)
        return np.reshape(values, (*x.shape[:-1], count))
    return np.flip(np.sort(np.partition(x, -count, axis=-1)[..., -count:], axis=-1), axis=-1)


def largest(x: Array, count: int) -> tuple[Array, Array]:
    """The `count` largest of each row [num_rows, n], largest first, and where they are.

    Of equal values the first are taken, of -inf any.

    Returns:
        values and int64 indexes, both [num_rows, min(count, n)].
    """
    xp = array_namespace(x)
    count = min(count, x.shape[-1])
    if not is_torch_array(x) and _is_few(count, x.shape[-1]):
        return _few_largest(x, count)
    values, indexes = some_largest(x, min(count + 1, x.shape[-1]))
    is_tied = (values[:, 1:] == values[:, :-1]) & (values[:, 1:] > -math.inf)
    if not bool(xp.any(is_tied)):  # else which of equal ones are taken is to be decided
        return values[:, :count], indexes[:, :count]
    edge = largest_values(x, count)[:, -1:]
    # Of values equal to the smallest that is taken, the first are taken: they are as many as are missing above it.
    is_above, is_at = x > edge, x == edge
    num_missing = count - xp.count_nonzero(is_above, axis=-1)[:, None]
    is_taken = is_above | (is_at & (xp.cumulative_sum(xp.astype(is_at, xp.int64), axis=-1) <= num_missing))
    indexes = xp.reshape(xp.nonzero(is_taken)[1], (x.shape[0], count))
    values = xp.take_along_axis(x, indexes, axis=-1)
    order = xp.argsort(values, axis=-1, descending=True, stable=True)
    return xp.take_along_axis(values, order, axis=-1), xp.take_along_axis(indexes, order, axis=-1)


def some_largest(x: Array, count: int) -> tuple[Array, Array]:
    """As `largest`, but of equal values any; count is 1 to n."""
    if is_torch_array(x):
        top = x.topk(count, dim=-1)
        return top.values, top.indices
    if _is_few(count, x.shape[-1]):
        return _few_largest(x, count)
    indexes = np.argpartition(x, -count, axis=-1)[..., -count:]
    values = np.take_along_axis(x, indexes, axis=-1)
    order = np.argsort(-values, axis=-1, kind="stable")
    return np.take_along_axis(values, order, axis=-1), np.take_along_axis(indexes, order, axis=-1)


def _is_few(count: int, length: int) -> bool:
    """Whether `_few_largest` takes less time than a partition."""
    return length >= 4 * _num_columns(count)


def _num_columns(count: int) -> int:
    return max(_LEAST_COLUMNS, 8 * count)


def _few_largest(x: Array, count: int) -> tuple[Array, Array]:
    """`largest` in numpy, for a count far below the length of a row.

    A partition of a long row takes 20 times as long as reading it, and 100 times where most of it is equal. Here rows
    are folded into columns: as many columns as are wanted have a largest value of at least the bound, and few more
    values than are wanted reach it.
    """
    num_rows, length = x.shape
    num_columns = _num_columns(count)
    height = length // num_columns
    folded = np.reshape(x[:, : height * num_columns], (num_rows, height, num_columns))
    tops = np.concatenate([np.max(folded, axis=1), x[:, height * num_columns :]], axis=1)
    bounds = np.partition(tops, -count, axis=-1)[:, -count]
    indexes = np.empty((num_rows, count), dtype=np.int64)
    for row, bound, taken in zip(x, bounds, indexes, strict=True):
        (reaching,) = np.nonzero(~(row <= bound) if bound == -math.inf else ~(row < bound))  # nan reaches anything
        if len(reaching) < count:  # all others are -inf
            others = np.flatnonzero(row == -math.inf)
            reaching = np.concatenate([reaching, others[: count - len(reaching)]])
        taken[:] = reaching[np.argsort(-row[reaching], kind="stable")[:count]]
    return np.take_along_axis(x, indexes, axis=-1), indexes


def on_host(x: Array) -> Array:
    """The same as a numpy array: small arrays take less time there."""
    return x.cpu().numpy() if is_torch_array(x) else x


def handy(size: int, *arrays: Array | int) -> tuple[Any, ...]:
    """The same, tensors as numpy arrays where that takes less time: on a CPU, in many steps that are small.

    Args:
        size: elements of what is to be computed from them.
    """
    is_small = size <= _SMALL_ELEMENTS and all(not is_torch_array(x) or x.device.type == "cpu" for x in arrays)
    return tuple(x.numpy() if is_small and is_torch_array(x) else x for x in arrays)


def at_indexes(rows: Array, indexes: Array) -> Array:
    """One value of each row: rows [num_rows, n] at int64 indexes [num_rows]."""
    return array_namespace(rows).take_along_axis(rows, indexes[:, None], axis=-1)[:, 0]


def take_rows(x: Array, rows: Sequence[int]) -> Array:
    """These rows of x [num_rows, n]: a view where they follow one another, else a copy."""
    if not rows:
        return x[:0]
    if list(rows) == list(range(rows[0], rows[-1] + 1)):
        return x[rows[0] : rows[-1] + 1]
    return array_namespace(x).take(x, integers_like(rows, x), axis=0)


def row_blocks(x: Array) -> Iterator[slice]:
    """Slices of the rows of x [num_rows, n] that bound the memory of what is computed from each."""
    num_rows, length = x.shape
    step = max(1, _BLOCK_ELEMENTS // max(1, length))
    return (slice(first, min(first + step, num_rows)) for first in range(0, num_rows, step))


def packed(items: Sequence[Item], arrays: Sequence[Array]) -> Iterator[list[Item]]:
    """Runs of items whose arrays are together no larger than a block, or that are one each.

    Args:
        arrays: of each item.
    """
    run: list[Item] = []
    size = 0
    for item, array in zip(items, arrays, strict=True):
        num_elements = math.prod(array.shape)
        if run and size + num_elements > _BLOCK_ELEMENTS:
            yield run
            run, size = [], 0
        run.append(item)
        size += num_elements
    if run:
        yield run


def measure_tokens(
    measure: Callable[[Array, Array], Array], x: Array, rows: Sequence[int], token_ids: Sequence[int]
) -> list[float]:
    """Apply `measure` to blocks of rows [n, vocab_size] and a token id for each [n]; it returns a number for each [n].

    Args:
        x: [num_rows, vocab_size].
        rows, token_ids: of equal lengths.
    """
    if not rows:
        return []
    taken, ids = take_rows(x, rows), integers_like(token_ids, x)
    return [value for block in row_blocks(taken) for value in measure(taken[block], ids[block]).tolist()]
