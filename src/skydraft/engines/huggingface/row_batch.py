"""How attention sees the new tokens of a pass where rows are to be invariant: each token by itself.

On a CPU the rounding of a product of several rows depends on how many they are, and that of a sum over keys and values
on how many there are and where each of them lies. So each token is a batch of its own, and the keys and values that it
is computed with lie in the order of its text, filled up to whole pages whose number depends on its position alone; what
fills them up is masked. Products of weights take all rows of a pass at once, filled up to units of so many rows as this
processor rounds alike. Measured with torch 2.13 on x86: then float32, bfloat16 and float16 give the same bits in any
company (tests/engines/test_invariance).
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from skydraft.engines.slots import Ints, Placement, lineage

PAGE = 64  # entries: tokens whose texts take equally many pages attend in one call
# What is left of a product's rows behind whole tiles of a kernel is rounded in other ways. In float32 tiles have 4 rows
# on an AMD EPYC, 16 on an Intel Xeon with AVX-512, and fewer for some shapes of weights and numbers of threads.
ROW_UNITS = (1, 4, 8, 16, 32)
MOST_ROWS = 96  # that are tried
PRODUCTS = (nn.Linear, Conv1D)


@torch.no_grad()
def find_row_unit(model: nn.Module, dtype: torch.dtype) -> int:
    """The least unit of rows in which all products of a model's weights round a row alike, whatever its place.

    One row is multiplied at all places of one unit, two units, and so on. Where no unit does, the largest: a self-test
    will say so.
    """
    layers = {(type(layer), layer.weight.shape): layer for layer in model.modules() if isinstance(layer, PRODUCTS)}
    with_rows = [(layer, torch.randn(_width(layer), dtype=dtype)) for layer in layers.values()]
    for unit in ROW_UNITS:
        if all(_rounds_alike(layer, row, unit) for layer, row in with_rows):
            return unit
    return ROW_UNITS[-1]


def _width(layer: nn.Linear | Conv1D) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else int(layer.weight.shape[0])


def _rounds_alike(layer: nn.Module, row: Tensor, unit: int) -> bool:
    products = (layer(row.repeat(1, count, 1)) for count in range(unit, MOST_ROWS + 1, unit))
    first = next(products)[0, 0]
    return all(bool((product == first).all()) for product in products)


def filled_up(number: int, unit: int) -> int:
    """The least multiple of a unit that is no less."""
    return -(-number // unit) * unit


def row_batches(placement: Placement, device: torch.device) -> list[RowBatch]:
    """The new tokens of a slot as runs whose texts take equally many pages."""
    pages = placement.positions // PAGE
    firsts = [0, *(np.flatnonzero(np.diff(pages)) + 1).tolist(), len(pages)]
    return [RowBatch(placement, device, first, end) for first, end in pairwise(firsts)]


class RowBatch:
    """Some new tokens of one slot, as rows that attend one by one; it is used as a PaddedBatch is.

    Args:
        first, end: of the placement's tokens, those from first to before end; their texts take equally many pages.
    """

    width = 1

    def __init__(self, placement: Placement, device: torch.device, first: int, end: int) -> None:
        self._placement = placement
        self._device = device
        self._positions = placement.positions[first:end]
        self._span = slice(first, end)
        self.num_rows = self.num_tokens = end - first
        self.kv_length = filled_up(int(self._positions[0]) + 1, PAGE)
        self._masks: dict[tuple[int, torch.dtype, int | None], Tensor] = {}

    def read(self, store: Tensor) -> Tensor:
        """Keys or values [num_tokens, heads, kv_length, dim]: a view of the slot; for a tree a copy, path by path."""
        entries = store[self._placement.slot]
        if self._placement.tree.shape.is_chain:
            return entries[None, :, : self.kv_length].expand(self.num_tokens, -1, -1, -1)
        return entries[:, self._paths].transpose(0, 1)

    def pad(self, states: Tensor) -> Tensor:
        return states

    def unpad(self, cells: Tensor) -> Tensor:
        return cells

    def mask(self, num_groups: int, dtype: torch.dtype, window: int | None = None) -> Tensor:
        """What is added to attention scores, [num_tokens, 1, num_groups, kv_length]; as PaddedBatch.mask."""
        key = (num_groups, dtype, window)
        if key not in self._masks:
            entries = np.arange(self.kv_length)
            last = self._positions[:, None]
            visible = (entries <= last) & (entries > (-1 if window is None else last - window))
            mask = torch.zeros(visible.shape, dtype=dtype, device=self._device)
            mask.masked_fill_(torch.from_numpy(~visible).to(self._device), float("-inf"))
            self._masks[key] = mask[:, None, None].expand(-1, 1, num_groups, -1)
        return self._masks[key]

    @cached_property
    def _paths(self) -> Tensor:
        """int [num_tokens, kv_length]: the entries that each token sees, in the order of its text, then any others."""
        tree = self._placement.tree
        is_on_path = lineage(tree.shape)[-len(self._placement.token_ids) :][self._span]
        paths: Ints = np.tile(np.arange(self.kv_length), (self.num_tokens, 1))
        for path, marks in zip(paths, is_on_path, strict=True):
            nodes = tree.start + np.flatnonzero(marks)
            path[tree.start : tree.start + len(nodes)] = nodes
        return torch.from_numpy(paths).to(self._device)
