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
from skydraft.engines.huggingface.attention_batch import PaddedBatch
from skydraft.engines.huggingface.row_batch import RowBatch, filled_up, row_batches
from skydraft.engines.slots import Ints, Placement
from skydraft.errors import ModelLoadError

ATTENTION_NAME = "skydraft_slots"
WIDE = 32  # tokens of one extension from which padding others to its width costs more than a second call
_UNSUPPORTED = ("s_aux", "position_bias")  # options that some models pass to attention


class BatchPlan:
    """Where the tokens of one forward pass are read and written.

    Attention sees them in padded batches, which are as wide as their longest extension: a long one has a batch of its
    own, else the short ones beside it would be padded to its width.

    Args:
        is_invariant: each token attends by itself (`row_batch`).
        row_unit: the tokens go through the model together with as many that mean nothing as fill up such units.
    """

    def __init__(
        self,
        placements: Sequence[Placement],
        device: torch.device,
        is_invariant: bool = False,
        row_unit: int = 1,
    ) -> None:
        in_slots = sorted(placements, key=lambda placement: placement.slot)
        narrow = [placement for placement in in_slots if len(placement.token_ids) <= WIDE]
        wide = [placement for placement in in_slots if len(placement.token_ids) > WIDE]
        self.placements = narrow + wide
        self.batches: Sequence[PaddedBatch | RowBatch]
        if is_invariant:
            self.batches = [batch for placement in self.placements for batch in row_batches(placement, device)]
        else:
            parts = (narrow, *([placement] for placement in wide))
            self.batches = [PaddedBatch(part, device) for part in parts if part]
        self.kv_length = max(batch.kv_length for batch in self.batches)
        self._device = device
        self._counts = [len(placement.token_ids) for placement in self.placements]
        self.num_tokens = sum(self._counts)
        self.num_fillers = filled_up(self.num_tokens, row_unit) - self.num_tokens
        self._row_unit = row_unit

    @property
    def token_ids(self) -> Tensor:
        """int [1, num_tokens + num_fillers]"""
        ids = [token_id for placement in self.placements for token_id in placement.token_ids]
        return torch.tensor(ids + [0] * self.num_fillers, device=self._device)[None]

    @property
    def positions(self) -> Tensor:
        """int [1, num_tokens + num_fillers]: for rotary embeddings."""
        fillers = np.zeros(self.num_fillers, dtype=np.int64)
        return self._put(np.concatenate([*(placement.positions for placement in self.placements), fillers]))[None]

    @cached_property
    def rows(self) -> Tensor | None:
        """int [num_wanted]: of which tokens the logits are wanted, and fillers behind them; None: of all."""
        is_wanted = all(p.num_rows == count for p, count in zip(self.placements, self._counts, strict=True))
        if is_wanted and not self.num_fillers:
            return None
        ends = np.cumsum(self._counts)
        wanted = np.concatenate(
            [np.arange(end - p.num_rows, end) for p, end in zip(self.placements, ends, strict=True)]
        )
        num_fillers = filled_up(len(wanted), self._row_unit) - len(wanted)
        return self._put(np.concatenate([wanted, np.zeros(num_fillers, dtype=np.int64)]))

    def write(self, store: Tensor, states: Tensor) -> None:
        """Put new keys or values where they belong.

        Args:
            store: [num_slots, heads, max_length, dim].
            states: [1, heads, num_tokens + num_fillers, dim].
        """
        states = states[:, :, : self.num_tokens]
        if len(self.placements) == 1:
            placement = self.placements[0]
            store[placement.slot, :, placement.start : placement.end] = states[0]
        else:
            slots, indexes = self._targets
            store[slots, :, indexes] = states[0].transpose(0, 1)

    @cached_property
    def _targets(self) -> tuple[Tensor, Tensor]:
        """int [num_tokens], twice: slot and index of each token."""
        slots = np.repeat([placement.slot for placement in self.placements], self._counts)
        indexes = np.concatenate([np.arange(p.start, p.end) for p in self.placements])
        return self._put(slots), self._put(indexes)

    def _put(self, values: Ints) -> Tensor:
        return torch.from_numpy(values).to(self._device)


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one layer for all slots; made when the layer first runs: only then is their shape known."""

    is_sliding = False

    def __init__(self, limits: EngineLimits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limits = limits
        self.plan: BatchPlan | None = None
        self.stores: tuple[Tensor, ...] = ()  # keys and values [num_slots, heads, max_length, dim]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.stores = (self._store(key_states), self._store(value_states))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write [1, heads, num_tokens, dim]; returns all slots, [num_slots, heads, max_length, dim]."""
        assert self.plan is not None, "SlotCache.use was not called"
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.stores
        self.plan.write(keys, key_states)
        self.plan.write(values, value_states)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (query_length if self.plan is None else self.plan.kv_length), 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return self._limits.max_length

    get_max_cache_shape = get_max_length  # what the first versions 5 of transformers call it

    def _store(self, states: Tensor) -> Tensor:
        # Zeros: what is masked must still be a number, and a CPU gives zero pages only as they are written.
        _, num_heads, _, dim = states.shape
        return states.new_zeros(self._limits.num_slots, num_heads, self._limits.max_length, dim)


class SlotCache(Cache):
    """The layers of a model, and operations on all of them."""

    def __init__(self, num_layers: int, limits: EngineLimits) -> None:
        self._slot_layers = [SlotLayer(limits) for _ in range(num_layers)]
        # Indexes of a slot's entries, and those that they get: carried out before the next forward pass.
        self._moves: dict[Slot, tuple[Ints, Ints]] = {}
        super().__init__(layers=list(self._slot_layers))

    def use(self, plan: BatchPlan) -> None:
        """The next forward pass runs by this plan."""
        self._carry_out_moves()
        for layer in self._slot_layers:
            layer.plan = plan

    def move(self, slot: Slot, sources: Ints, start: int) -> None:
        """Move the entries at indexes `sources` to a run that begins at `start`, together with those of other slots."""
        if slot in self._moves:
            self._carry_out_moves()
        self._moves[slot] = sources, np.arange(start, start + len(sources))

    def wipe(self, slot: Slot, length: int) -> None:
        """Zero a slot's entries: neither a secret nor a NaN of one session reaches the next."""
        self._moves.pop(slot, None)
        for store in self._stores():
            store[slot, :, :length] = 0

    def copy(self, slot: Slot, start: int, end: int) -> list[Tensor]:
        """A run of a slot's entries, in the host's memory: keys and values of each layer, [heads, end - start, dim]."""
        self._carry_out_moves()
        return [store[slot, :, start:end].to("cpu", copy=True) for store in self._stores()]

    def paste(self, slot: Slot, entries: Sequence[Tensor], start: int = 0) -> None:
        """Give a slot the entries of another, as `copy` gave them."""
        for store, entry in zip(self._stores(), entries, strict=True):
            store[slot, :, start : start + entry.shape[1]] = entry.to(store.device)

    def num_bytes(self) -> int:
        return sum(store.nbytes for store in self._stores())

    def _carry_out_moves(self) -> None:
        if not self._moves:
            return
        stores, moves = self._stores(), self._moves.values()
        all_slots = np.repeat(list(self._moves), [len(sources) for sources, _ in moves])
        all_sources, all_targets = (np.concatenate(indexes) for indexes in zip(*moves, strict=True))
        table = torch.from_numpy(np.stack([all_slots, all_sources, all_targets])).to(stores[0].device)
        slots, sources, targets = table
        for store in stores:
            store[slots, :, targets] = store[slots, :, sources]
        self._moves.clear()

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
    sliding_window: int | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row of new tokens to slots.

    Args:
        query: [1, num_heads, num_tokens + num_fillers, dim].
        key, value: [num_slots, num_kv_heads, max_length, dim], from SlotLayer.
        attention_mask: None; the plan has the mask.
        sliding_window: of how many positions, its own included, a token sees the last; None: of all.
        softcap: scores are squeezed to this range, softcap * tanh(score / softcap); None: not at all.
    Returns:
        [1, num_tokens + num_fillers, num_heads, dim] and no attention weights.
    """
    for name in _UNSUPPORTED:
        if options.get(name) is not None:
            raise ModelLoadError(f"{type(module).__name__} needs {name} in its attention, which skydraft does not do")
    tokens = query[0].transpose(0, 1)
    queries = tokens[: plan.num_tokens].split_with_sizes([batch.num_tokens for batch in plan.batches])
    parts = [
        _attend(batch, part, key, value, scaling, sliding_window, softcap)
        for batch, part in zip(plan.batches, queries, strict=True)
    ]
    if plan.num_fillers:
        parts.append(torch.zeros_like(tokens[plan.num_tokens :]))
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None], None


def _attend(
    batch: PaddedBatch | RowBatch,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """One batch of new tokens [num_tokens, num_heads, dim]; returns the same shape.

    Query heads that share a key head are laid one after the other as more queries of that head, so that keys and
    values need not be repeated (with 8 to a group: 8 times as fast as repeating them).
    """
    num_kv_heads, num_rows, width = key.shape[1], batch.num_rows, batch.width
    num_groups = query.shape[1] // num_kv_heads
    cells = batch.pad(query).reshape(num_rows, width, num_kv_heads, num_groups, -1).permute(0, 2, 3, 1, 4)
    queries = cells.reshape(num_rows, num_kv_heads, num_groups * width, -1)
    mask, keys, values = batch.mask(num_groups, query.dtype, sliding_window), batch.read(key), batch.read(value)
    if softcap is None:
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scaling)
    else:
        scores = queries @ keys.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        scores = softcap * torch.tanh(scores / softcap)
        scores = scores if mask is None else scores + mask
        attended = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype) @ values
    cells = attended.reshape(num_rows, num_kv_heads, num_groups, width, -1).permute(0, 3, 1, 2, 4)
    return batch.unpad(cells.reshape(num_rows * width, num_kv_heads * num_groups, -1))


AttentionInterface.register(ATTENTION_NAME, slot_attention)
