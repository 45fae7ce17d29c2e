"""How attention sees the new tokens of a forward pass: as batches of slots by tokens, padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skydraft.engines.slots import Ints, Placement, lineage


class PaddedBatch:
    """Some slots of a forward pass, whose new tokens attention sees together.

    Rows are the slots of a range that contains all slots of the batch. Columns are the new tokens of a slot, as many as
    the longest extension has. The cells beyond the new tokens are padding: they are computed and thrown away.

    Args:
        placements: by ascending slot.
    """

    def __init__(self, placements: Sequence[Placement], device: torch.device) -> None:
        self._placements = placements
        self._device = device
        self._counts = [len(placement.token_ids) for placement in placements]
        self.width = max(self._counts)
        self.kv_length = max(placement.end for placement in placements)
        self.num_tokens = sum(self._counts)
        slots = [placement.slot for placement in placements]
        # Rows that no one asked for cost less than copying those that were, up to about as many.
        self._is_range = slots[-1] - slots[0] < 2 * len(slots)
        self._first = slots[0] if self._is_range else 0
        self.num_rows = slots[-1] - slots[0] + 1 if self._is_range else len(slots)
        self._rows = [slot - self._first for slot in slots] if self._is_range else list(range(len(slots)))
        self._is_full = self.num_tokens == self.num_rows * self.width
        self._masks: dict[tuple[int, torch.dtype, int | None], Tensor | None] = {}

    def read(self, store: Tensor) -> Tensor:
        """What the rows may attend to: [num_rows, heads, kv_length, dim]; a view where the slots lie close together."""
        used = store[:, :, : self.kv_length]
        if self._is_range:
            return used[self._first : self._first + self.num_rows]
        return used.index_select(0, self._slot_index)

    def pad(self, states: Tensor) -> Tensor:
        """[num_tokens, ...] to [num_rows * width, ...]"""
        return states if self._is_full else states.index_select(0, self._token_of_cell)

    def unpad(self, cells: Tensor) -> Tensor:
        """[num_rows * width, ...] to [num_tokens, ...]"""
        return cells if self._is_full else cells.index_select(0, self._cell_of_token)

    def mask(self, num_groups: int, dtype: torch.dtype, window: int | None = None) -> Tensor | None:
        """What is added to attention scores: 0 where a token may look, else -inf.

        Args:
            num_groups: query heads that share a key head; their queries lie one after the other.
            window: of how many positions, its own included, a token sees the last; None: of all.
        Returns:
            [num_rows, 1, num_groups * width, kv_length], or None where every token may look at everything.
        """
        if window is not None and window >= self.kv_length:
            window = None
        key = (num_groups, dtype, window)
        if key not in self._masks:
            self._masks[key] = self._make_mask(num_groups, dtype, window)
        return self._masks[key]

    def _make_mask(self, num_groups: int, dtype: torch.dtype, window: int | None) -> Tensor | None:
        sees_all = all(p.end == self.kv_length and p.tree.shape.is_chain for p in self._placements)
        if window is None and self.width == 1 and self._is_full and sees_all:
            return None
        visible = self._visible if window is None else self._visible & self._within(window)
        mask = torch.zeros(visible.shape, dtype=dtype, device=self._device)
        mask.masked_fill_(~visible, float("-inf"))
        mask = mask[:, None].expand(-1, num_groups, -1, -1)
        return mask.reshape(self.num_rows, 1, num_groups * self.width, self.kv_length)

    @cached_property
    def _visible(self) -> Tensor:
        """bool [num_rows, width, kv_length]: what the token of a cell may look at; one index for an empty cell."""
        last = np.zeros(self.num_rows * self.width, dtype=np.int64)
        last[self._cells] = np.concatenate([np.arange(p.start, p.end) for p in self._placements])
        visible = torch.arange(self.kv_length, device=self._device) <= self._put(last).view(-1, self.width, 1)
        hidden: list[Ints] = []  # indexes into the flat mask
        for row, placement in zip(self._rows, self._placements, strict=True):
            if not placement.tree.shape.is_chain:  # its nodes that stand before others and are not above them
                tokens, nodes = np.nonzero(~lineage(placement.tree.shape)[-len(placement.token_ids) :])
                hidden.append((row * self.width + tokens) * self.kv_length + placement.tree.start + nodes)
        if hidden:
            visible.view(-1)[self._put(np.concatenate(hidden))] = False
        return visible

    def _within(self, window: int) -> Tensor:
        """bool [num_rows, width, kv_length]: the last positions up to that of the token of a cell.

        An entry's position is its index but for the nodes of a tree, which stand at their depth.
        """
        own = np.zeros(self.num_rows * self.width, dtype=np.int64)
        own[self._cells] = np.concatenate([placement.positions for placement in self._placements])
        entries = np.tile(np.arange(self.kv_length), (self.num_rows, 1))
        for row, placement in zip(self._rows, self._placements, strict=True):
            tree = placement.tree
            if not tree.shape.is_chain:
                entries[row, tree.start : tree.start + len(tree.shape)] = tree.positions
        return self._put(entries)[:, None] > self._put(own).view(-1, self.width, 1) - window

    @cached_property
    def _slot_index(self) -> Tensor:
        return self._put(np.array([placement.slot for placement in self._placements]))

    @cached_property
    def _cells(self) -> Ints:
        """int [num_tokens]: the cell of each token."""
        cells = (
            np.arange(row * self.width, row * self.width + count)
            for row, count in zip(self._rows, self._counts, strict=True)
        )
        return np.concatenate(list(cells))

    @cached_property
    def _cell_of_token(self) -> Tensor:
        return self._put(self._cells)

    @cached_property
    def _token_of_cell(self) -> Tensor:
        tokens = np.zeros(self.num_rows * self.width, dtype=np.int64)
        tokens[self._cells] = np.arange(self.num_tokens)
        return self._put(tokens)

    def _put(self, values: Ints) -> Tensor:
        return torch.from_numpy(values).to(self._device)
