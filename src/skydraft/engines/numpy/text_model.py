"""The text model of a Qwen2.5-Omni thinker, Qwen2's decoder, on a KV cache of slots.

Where rows are to be invariant, each is a product of its own in linear layers, and attention always sees rows so: one by
one, in the order of their text, with as many entries as fill up the pages that its position lies in; what fills them up
is masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from skydraft.engines.base import EngineLimits, Slot
from skydraft.engines.numpy.layers import Linear, Part, Product, RmsNorm, silu, softmax
from skydraft.engines.numpy.weights import Floats, Weights
from skydraft.engines.slots import Ints, Placement, lineage
from skydraft.text.checkpoint import ConfigTable

PAGE = 64  # entries: rows whose texts take equally many pages attend in one call
KEYS, VALUES = 0, 1


class TextConfig(NamedTuple):
    """The sizes of a text model. head_size: of the keys of a head."""

    vocab_size: int
    size: int
    inner_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    norm_epsilon: float
    rope_theta: float
    ties_embeddings: bool

    @classmethod
    def read(cls, thinker: ConfigTable) -> TextConfig:
        """Of a thinker's config."""
        config = thinker["text_config"]
        rope = config.get("rope_parameters") or config
        num_heads = int(config["num_attention_heads"])
        return cls(
            vocab_size=int(config["vocab_size"]),
            size=int(config["hidden_size"]),
            inner_size=int(config["intermediate_size"]),
            num_layers=int(config["num_hidden_layers"]),
            num_heads=num_heads,
            num_kv_heads=int(config["num_key_value_heads"]),
            head_size=int(config.get("head_dim") or config["hidden_size"] // num_heads),
            norm_epsilon=float(config["rms_norm_eps"]),
            rope_theta=float(rope["rope_theta"]),
            ties_embeddings=bool(thinker.get("tie_word_embeddings")),
        )


class Run(NamedTuple):
    """Some rows of a slot whose texts take equally many pages.

    rows: of the pass. mask: [num_rows, 1, 1, kv_length], added to scores.
    paths: int [num_rows, kv_length], of a tree the entries that each row sees, in the order of its text, then any
        others; None where that is the order of the entries.
    """

    rows: slice
    slot: Slot
    kv_length: int
    mask: Floats
    paths: Ints | None


class PassPlan:
    """Where the rows of one pass are read and written.

    slots, indexes, positions: int [num_rows], each; positions are in the text, prompt included.
    """

    def __init__(self, placements: Sequence[Placement]) -> None:
        counts = [len(placement.token_ids) for placement in placements]
        self.slots = np.repeat([placement.slot for placement in placements], counts)
        self.indexes = np.concatenate([np.arange(p.start, p.end) for p in placements])
        self.positions = np.concatenate([placement.positions for placement in placements])
        firsts = np.cumsum([0, *counts[:-1]]).tolist()
        self.runs = [run for p, first in zip(placements, firsts, strict=True) for run in _runs(p, first)]


class KvCache:
    """Keys and values [num_layers, 2, num_slots, num_kv_heads, max_length in whole pages, head_size]."""

    def __init__(self, config: TextConfig, limits: EngineLimits) -> None:
        room = -(-limits.max_length // PAGE) * PAGE
        # Zeros: what is masked must still be a number, and the system gives zero pages only as they are written.
        shape = (config.num_layers, 2, limits.num_slots, config.num_kv_heads, room, config.head_size)
        self._store = np.zeros(shape, dtype=np.float32)

    def write(self, layer: int, plan: PassPlan, keys: Floats, values: Floats) -> None:
        """New keys and values [num_rows, num_kv_heads, head_size]."""
        store = self._store[layer]
        store[KEYS, plan.slots, :, plan.indexes] = keys
        store[VALUES, plan.slots, :, plan.indexes] = values

    def read(self, layer: int, run: Run) -> tuple[Floats, Floats]:
        """Keys and values that rows see: [num_kv_heads, kv_length, head_size], of a tree one for each row."""
        entries = self._store[layer, :, run.slot]
        if run.paths is None:
            return entries[KEYS, :, : run.kv_length], entries[VALUES, :, : run.kv_length]
        return entries[KEYS][:, run.paths].swapaxes(0, 1), entries[VALUES][:, run.paths].swapaxes(0, 1)

    def move(self, slot: Slot, sources: Ints, start: int) -> None:
        """Move a slot's entries at indexes `sources` to a run that begins at `start`."""
        self._store[:, :, slot, :, start : start + len(sources)] = self._store[:, :, slot][..., sources, :]

    def copy(self, slot: Slot, start: int, end: int) -> Floats:
        """A run of a slot's entries: [num_layers, 2, num_kv_heads, end - start, head_size]."""
        return self._store[:, :, slot, :, start:end].copy()

    def paste(self, slot: Slot, entries: Floats, start: int = 0) -> None:
        """Give a slot the entries of another, as `copy` gave them."""
        self._store[:, :, slot, :, start : start + entries.shape[3]] = entries

    def wipe(self, slot: Slot, length: int) -> None:
        """Zero a slot's entries: neither a secret nor a NaN of one session reaches the next."""
        self._store[:, :, slot, :, :length] = 0


class TextModel:
    """Embeddings, layers and the head.

    Args:
        product: how linear layers multiply rows.
    """

    def __init__(self, config: TextConfig, weights: Weights, limits: EngineLimits, product: Product) -> None:
        self._embeddings = weights.take("model.embed_tokens.weight", config.vocab_size, config.size)
        self._layers = [_DecoderLayer(config, weights, index, product) for index in range(config.num_layers)]
        self._norm = RmsNorm(weights, "model.norm", config.size, config.norm_epsilon)
        head = "model.embed_tokens" if config.ties_embeddings else "lm_head"
        self._head = Linear(weights, config.size, Part(head, config.vocab_size, has_bias=False))
        self._product = product
        self._cos, self._sin = _rotations(config, limits.max_length)
        self.cache = KvCache(config, limits)

    def embed(self, token_ids: Sequence[int]) -> Floats:
        """[num_tokens, size]"""
        embedded: Floats = self._embeddings[np.asarray(token_ids)]
        return embedded

    def read(self, rows: Floats, plan: PassPlan) -> Floats:
        """What the last layer makes of embeddings: both [num_rows, size]; their keys and values are cached."""
        turns = self._cos[plan.positions, None], self._sin[plan.positions, None]
        for layer in self._layers:
            layer(rows, plan, turns, self.cache)
        return rows

    def logits(self, rows: Floats) -> Floats:
        """Of rows that `read` gave: [num_rows, vocab_size]."""
        return self._head(self._norm(rows), self._product)


class _DecoderLayer:
    def __init__(self, config: TextConfig, weights: Weights, index: int, product: Product) -> None:
        name, size, inner = f"model.layers.{index}", config.size, config.inner_size
        self._index, self._config, self._product = index, config, product
        self._scale = np.float32(config.head_size**-0.5)
        kv_size, heads_size = config.num_kv_heads * config.head_size, config.num_heads * config.head_size
        sizes = {"q_proj": heads_size, "k_proj": kv_size, "v_proj": kv_size}
        parts = (Part(f"{name}.self_attn.{part}", num_outputs) for part, num_outputs in sizes.items())
        gates = (Part(f"{name}.mlp.{part}", inner, has_bias=False) for part in ("gate_proj", "up_proj"))
        self._attention_norm = RmsNorm(weights, f"{name}.input_layernorm", size, config.norm_epsilon)
        self._queries_keys_values = Linear(weights, size, *parts)
        self._out = Linear(weights, heads_size, Part(f"{name}.self_attn.o_proj", size, has_bias=False))
        self._inner_norm = RmsNorm(weights, f"{name}.post_attention_layernorm", size, config.norm_epsilon)
        self._gate_and_up = Linear(weights, size, *gates)
        self._down = Linear(weights, inner, Part(f"{name}.mlp.down_proj", size, has_bias=False))

    def __call__(self, rows: Floats, plan: PassPlan, turns: tuple[Floats, Floats], cache: KvCache) -> None:
        """Rows [num_rows, size], in place."""
        rows += self._attend(self._queries_keys_values(self._attention_norm(rows), self._product), plan, turns, cache)
        gate, up = np.split(self._gate_and_up(self._inner_norm(rows), self._product), 2, axis=1)
        rows += self._down(silu(gate) * up, self._product)

    def _attend(self, joined: Floats, plan: PassPlan, turns: tuple[Floats, Floats], cache: KvCache) -> Floats:
        num_rows, config = len(joined), self._config
        by_head = joined.reshape(num_rows, -1, config.head_size)
        num_turned = config.num_heads + config.num_kv_heads
        turned = _turn(by_head[:, :num_turned], *turns)
        cache.write(self._index, plan, turned[:, config.num_heads :], by_head[:, num_turned:])
        # Query heads that share a key head lie one after the other.
        queries = turned[:, : config.num_heads] * self._scale
        queries = queries.reshape(num_rows, config.num_kv_heads, -1, config.head_size)
        attended = np.empty_like(queries)
        for run in plan.runs:
            keys, values = cache.read(self._index, run)
            scores: Floats = np.add(queries[run.rows] @ keys.swapaxes(-1, -2), run.mask)
            attended[run.rows] = softmax(scores) @ values
        return self._out(attended.reshape(num_rows, -1), self._product)


def _runs(placement: Placement, first_row: int) -> list[Run]:
    """The new tokens of a slot, cut where their texts take more pages or, behind a fork, fewer."""
    pages = placement.positions // PAGE
    cuts = [0, *(np.flatnonzero(np.diff(pages)) + 1).tolist(), len(pages)]
    runs = []
    for first, end in pairwise(cuts):
        positions = placement.positions[first:end]
        entries = np.arange((int(pages[first]) + 1) * PAGE)
        mask = np.where(entries <= positions[:, None], np.float32(0), np.float32(-np.inf))[:, None, None]
        paths = None if placement.tree.shape.is_chain else _paths(placement, slice(first, end), entries)
        runs.append(Run(slice(first_row + first, first_row + end), placement.slot, len(entries), mask, paths))
    return runs


def _paths(placement: Placement, tokens: slice, entries: Ints) -> Ints:
    tree = placement.tree
    is_on_path = lineage(tree.shape)[-len(placement.token_ids) :][tokens]
    paths: Ints = np.tile(entries, (len(is_on_path), 1))
    for path, marks in zip(paths, is_on_path, strict=True):
        nodes = tree.start + np.flatnonzero(marks)
        path[tree.start : tree.start + len(nodes)] = nodes
    return paths


def _rotations(config: TextConfig, length: int) -> tuple[Floats, Floats]:
    """Cosines and sines of rotary embeddings, [length, head_size] each; their halves are the same."""
    steps = 1 / config.rope_theta ** (np.arange(0, config.head_size, 2, dtype=np.float32) / config.head_size)
    angles: Floats = np.arange(length, dtype=np.float32)[:, None] * np.tile(steps, 2).astype(np.float32)
    return np.cos(angles), np.sin(angles)


def _turn(heads: Floats, cos: Floats, sin: Floats) -> Floats:
    """Rotary embeddings of [num_rows, num_heads, head_size]; cos and sin: [num_rows, 1, head_size]."""
    half = heads.shape[-1] // 2
    swapped = np.concatenate([-heads[..., half:], heads[..., :half]], axis=-1)
    turned: Floats = np.add(heads * cos, swapped * sin)
    return turned
