"""The KV cache of slots: one tensor [num_slots, num_kv_heads, max_length, head_dim] for keys and values of each layer.

The new tokens of all extensions go through the model as one row, without padding; only attention sees them slot by
slot. Each layer writes the new keys and values to their (slot, index) and attends to a view of the slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from skydraft.engines.base import EngineLimits, Slot
from skydraft.engines.slots import Ints, Placement
from skydraft.errors import ModelLoadError

ATTENTION_NAME = "skydraft_slots"
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")  # what some models ask of attention beyond a mask


class BatchPlan:
    """Where the tokens of one forward pass are read and written.

    Rows are the slots of a range that holds all slots of the batch; columns are the new tokens of a slot, the longest
    extension's count wide. What lies in this grid beyond the new tokens is computed and thrown away.

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
        self._masks: dict[tuple[int, torch.dtype], Tensor | None] = {}

    @property
    def token_ids(self) -> Tensor:
        """int [1, num_tokens]"""
        ids = [token_id for placement in self._placements for token_id in placement.token_ids]
        return torch.tensor(ids, device=self._device)[None]

    @property
    def positions(self) -> Tensor:
        """int [1, num_tokens]: for rotary embeddings."""
        return self._put(np.concatenate([placement.positions for placement in self._placements]))[None]

    def write(self, store: Tensor, states: Tensor) -> None:
        """Put new keys or values where they belong.

        Args:
            store: [num_slots, heads, max_length, dim].
            states: [1, heads, num_tokens, dim].
        """
        if len(self._placements) == 1:
            placement = self._placements[0]
            store[placement.slot, :, placement.start : placement.end] = states[0]
        else:
            store[self._write_slots, :, self._write_indexes] = states[0].transpose(0, 1)

    def read(self, store: Tensor) -> Tensor:
        """What the rows may attend to: [num_rows, heads, kv_length, dim]; a view where the slots lie close together."""
        used = store[:, :, : self.kv_length]
        if self._is_range:
            return used[self._first : self._first + self.num_rows]
        return used.index_select(0, self._slot_index)

    def spread(self, states: Tensor) -> Tensor:
        """[num_tokens, ...] to [num_rows * width, ...]"""
        return states if self._is_full else states.index_select(0, self._token_of_cell)

    def collect(self, cells: Tensor) -> Tensor:
        """[num_rows * width, ...] to [num_tokens, ...]"""
        return cells if self._is_full else cells.index_select(0, self._cell_of_token)

    def mask(self, num_groups: int, dtype: torch.dtype) -> Tensor | None:
        """What is added to attention scores: 0 where a token may look, else -inf.

        Args:
            num_groups: query heads that share a key head; their queries lie one after the other.
        Returns:
            [num_rows, 1, num_groups * width, kv_length], or None where every token may look at everything.
        """
        key = (num_groups, dtype)
        if key not in self._masks:
            self._masks[key] = self._make_mask(num_groups, dtype)
        return self._masks[key]

    def _make_mask(self, num_groups: int, dtype: torch.dtype) -> Tensor | None:
        if self.width == 1 and self._is_full and self._sees_all:
            return None
        mask = torch.zeros(self._visible.shape, dtype=dtype, device=self._device)
        mask.masked_fill_(~self._visible, float("-inf"))
        mask = mask[:, None].expand(-1, num_groups, -1, -1)
        return mask.reshape(self.num_rows, 1, num_groups * self.width, self.kv_length)

    @property
    def _sees_all(self) -> bool:
        return all(p.end == self.kv_length and p.tree.is_chain for p in self._placements)

    @cached_property
    def _visible(self) -> Tensor:
        """bool [num_rows, width, kv_length]: what the token of a cell may look at; one index for an empty cell."""
        last = torch.zeros(self.num_rows, self.width, dtype=torch.long)
        for row, placement, count in zip(self._rows, self._placements, self._counts, strict=True):
            last[row, :count] = torch.arange(placement.start, placement.end)
        visible = torch.arange(self.kv_length, device=self._device) <= last.to(self._device)[:, :, None]
        for row, placement, count in zip(self._rows, self._placements, self._counts, strict=True):
            if not placement.tree.is_chain:
                lineage = torch.from_numpy(placement.tree.lineage[-count:])
                visible[row, :count, placement.tree.start : placement.end] = lineage.to(self._device)
        return visible

    @cached_property
    def _write_slots(self) -> Tensor:
        return self._put(np.repeat([placement.slot for placement in self._placements], self._counts))

    @cached_property
    def _write_indexes(self) -> Tensor:
        return self._put(np.concatenate([np.arange(p.start, p.end) for p in self._placements]))

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


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one layer for all slots; made when the layer first runs: only then is their shape known."""

    is_sliding = False
    is_croppable = False

    def __init__(self, limits: EngineLimits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limits = limits
        self.plan: BatchPlan | None = None
        self.stores: tuple[Tensor, ...] = ()  # keys and values [num_slots, heads, max_length, dim]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.stores = (self._store(key_states), self._store(value_states))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write [1, heads, num_tokens, dim]; returns what the batch attends to, [num_rows, heads, kv_length, dim]."""
        assert self.plan is not None, "SlotCache.use was not called"
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.stores
        self.plan.write(keys, key_states)
        self.plan.write(values, value_states)
        return self.plan.read(keys), self.plan.read(values)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (query_length if self.plan is None else self.plan.kv_length), 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return self._limits.max_length

    def _store(self, states: Tensor) -> Tensor:
        # Zeros: what is masked must still be a number, and a CPU gives zero pages only as they are written.
        _, num_heads, _, dim = states.shape
        return states.new_zeros(self._limits.num_slots, num_heads, self._limits.max_length, dim)


class SlotCache(Cache):
    """The layers, and what is done to all of them."""

    def __init__(self, num_layers: int, limits: EngineLimits) -> None:
        self._slot_layers = [SlotLayer(limits) for _ in range(num_layers)]
        super().__init__(layers=list(self._slot_layers))

    def use(self, plan: BatchPlan) -> None:
        """The next forward pass runs by this plan."""
        for layer in self._slot_layers:
            layer.plan = plan

    def move(self, slot: Slot, sources: Ints, start: int) -> None:
        """Move the entries at indexes `sources` to a run that begins at `start`."""
        moved = torch.from_numpy(sources)
        for store in self._stores():
            index = moved.to(store.device)
            store[slot, :, start : start + len(sources)] = store[slot].index_select(1, index)

    def wipe(self, slot: Slot, length: int) -> None:
        """Forget what a slot held: neither a secret nor a NaN of one session reaches the next."""
        for store in self._stores():
            store[slot, :, :length] = 0

    def num_bytes(self) -> int:
        return sum(store.nbytes for store in self._stores())

    def _stores(self) -> list[Tensor]:
        return [store for layer in self._slot_layers for store in layer.stores]


def slot_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    plan: BatchPlan,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row of new tokens to slots.

    Query heads that share a key head are laid one after the other as more queries of that head, so that keys and
    values need not be repeated (with 8 to a group: 8 times as fast as repeating them).

    Args:
        query: [1, num_heads, num_tokens, dim].
        key, value: [num_rows, num_kv_heads, kv_length, dim], from SlotLayer.
        attention_mask: None; the plan has the mask.
    Returns:
        [1, num_tokens, num_heads, dim] and no attention weights.
    """
    for name in _UNSUPPORTED:
        if options.get(name) is not None:
            raise ModelLoadError(f"{type(module).__name__} needs {name} in its attention, which skydraft does not do")
    num_rows, num_kv_heads, _, _ = key.shape
    num_groups = query.shape[1] // num_kv_heads
    cells = plan.spread(query[0].transpose(0, 1))
    grid = cells.reshape(num_rows, plan.width, num_kv_heads, num_groups, -1).permute(0, 2, 3, 1, 4)
    queries = grid.reshape(num_rows, num_kv_heads, num_groups * plan.width, -1)
    mask = plan.mask(num_groups, query.dtype)
    attended = functional.scaled_dot_product_attention(queries, key, value, attn_mask=mask, scale=scaling)
    grid = attended.reshape(num_rows, num_kv_heads, num_groups, plan.width, -1).permute(0, 3, 1, 2, 4)
    cells = grid.reshape(num_rows * plan.width, num_kv_heads * num_groups, -1)
    return plan.collect(cells)[None], None


AttentionInterface.register(ATTENTION_NAME, slot_attention)
