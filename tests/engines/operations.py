"""Puts an engine through random operations and compares each row of logits with one computed from scratch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import numpy as np

from skydraft.core import Prompt, TokenSegment
from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import Array, ChunkedEngine, Engine, Extension, KvPiece, PromptChunk, Slot, SwappedSlot
from skydraft.engines.prompt_checks import text_ids

COPIED = 9  # tokens of a text, at most

# (prompt, token ids) -> [1 + num_tokens, vocab_size]: row i after i tokens
FromScratch = Callable[[Prompt, list[int]], np.ndarray]
MakePrompt = Callable[[np.random.Generator], Prompt]


def text_prompt(*token_ids: int) -> Prompt:
    return Prompt((TokenSegment(token_ids),))


def whole_prompts(engine: Engine) -> Engine:
    """An engine that reads prompts whole only, as one that knows nothing of chunks does."""
    names = ("name", "vocabulary", "limits", "row_promise", "open", "extend", "crop", "keep_path", "close")
    return cast(Engine, SimpleNamespace(**{name: getattr(engine, name) for name in names}))


@dataclass
class _Text:
    """What a slot should hold."""

    prompt: Prompt
    token_ids: list[int] = field(default_factory=list)  # without the nodes of an undecided tree
    nodes: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)

    def path(self, node: int) -> list[int]:
        path: list[int] = []
        parent = node + 1
        while parent:
            path.insert(0, parent - 1)
            parent = self.parents[parent - 1]
        return path

    def upto(self, node: int) -> list[int]:
        return self.token_ids + [self.nodes[i] for i in self.path(node)]


class RandomOperations:
    """Opens, extends (chains, trees, trees that grow), crops, keeps paths of and closes slots at random.

    Of a ChunkedEngine some prompts are read in chunks, in the passes that extend other slots, some slots are swapped
    out and in, and some prompts begin with what another slot has read.

    Args:
        vocab_size: ids are drawn below it and above 7, for a model may give the first a meaning.
        tolerance: largest difference of a logit, relative to the largest logit where that is above 1.
    """

    def __init__(
        self,
        engine: Engine,
        from_scratch: FromScratch,
        seed: int,
        *,
        vocab_size: int,
        make_prompt: MakePrompt | None = None,
        tolerance: float = 1e-5,
        max_text: int = 24,
    ) -> None:
        self.engine = engine
        self.from_scratch = from_scratch
        self.random = np.random.default_rng(seed)
        self.vocab_size = vocab_size
        self.make_prompt = make_prompt or self._make_prompt
        self.tolerance = tolerance
        self.max_text = max_text
        self.texts: dict[Slot, _Text] = {}
        self.unread: dict[Slot, tuple[Prompt, int]] = {}  # and how many tokens of it are left
        self.swapped: list[tuple[SwappedSlot, _Text]] = []
        self.copied: list[tuple[list[int], list[KvPiece]]] = []
        self.largest_difference = 0.0

    def run(self, num_steps: int) -> None:
        steps = [self.open, self.extend, self.extend, self.extend, self.crop, self.close, self.swap, self.copy]
        for _ in range(num_steps):
            steps[self.random.integers(len(steps))]()
            self._decide_some_trees()

    def open(self) -> None:
        if len(self.texts) + len(self.unread) == self.engine.limits.num_slots:
            return
        if isinstance(self.engine, ChunkedEngine) and self.copied and self.random.random() < 0.3:
            self._open_with_copy(self.engine)
            return
        prompt = self.make_prompt(self.random)
        if isinstance(self.engine, ChunkedEngine) and self.random.random() < 0.6:
            slot = self.engine.reserve(prompt)
            assert slot not in self.texts
            assert slot not in self.unread
            self.unread[slot] = prompt, self.engine.measure(prompt)
            return
        slot, logits = self.engine.open(prompt)
        assert slot not in self.texts
        self.texts[slot] = _Text(prompt)
        self._compare(logits, self.from_scratch(prompt, [])[-1])

    def extend(self) -> None:
        slots = [slot for slot, text in self.texts.items() if len(text.token_ids) + len(text.nodes) < self.max_text]
        chosen = [int(slot) for slot in self.random.permutation(slots)[: self.random.integers(1, 5)]]
        items: list[Extension | PromptChunk] = [self._extension(slot) for slot in chosen]
        items += [PromptChunk(slot, int(self.random.integers(1, left + 1))) for slot, (_, left) in self.unread.items()]
        items = [items[i] for i in self.random.permutation(len(items))]
        all_rows = self.engine.extend(items)  # type: ignore[arg-type]  # chunks are a ChunkedEngine's only
        for item, rows in zip(items, all_rows, strict=True):
            assert rows.shape[1] == self.engine.vocabulary.size
            if isinstance(item, PromptChunk):
                self._check_chunk(item, rows)
            else:
                self._check_rows(item, rows)

    def crop(self) -> None:
        for slot in self._some_slots():
            text = self.texts[slot]
            chain = next((i for i, parent in enumerate(text.parents) if parent != i), len(text.parents))
            kept = int(self.random.integers(0, len(text.token_ids) + chain + 1))
            self.engine.crop(slot, kept)
            text.token_ids = (text.token_ids + text.nodes)[:kept]
            text.nodes, text.parents = [], []

    def close(self) -> None:
        for slot in self._some_slots()[:1]:
            self.engine.close(slot)
            del self.texts[slot]
        if self.unread and self.random.random() < 0.1:
            slot, _ = self.unread.popitem()
            self.engine.close(slot)

    def swap(self) -> None:
        if not isinstance(self.engine, ChunkedEngine):
            return
        for slot in self._some_slots()[:1]:
            self._decide(slot)
            swapped = self.engine.swap_out(slot)
            assert swapped.num_bytes > 0
            self.swapped.append((swapped, self.texts.pop(slot)))
        if self.swapped and len(self.texts) + len(self.unread) < self.engine.limits.num_slots:
            swapped, text = self.swapped.pop(int(self.random.integers(len(self.swapped))))
            slot = self.engine.swap_in(swapped)
            assert slot not in self.texts
            self.texts[slot] = text

    def copy(self) -> None:
        """Copy the beginning of a text out, in one piece or two."""
        slots = list(self.texts)
        if not isinstance(self.engine, ChunkedEngine) or not slots:
            return
        slot, reuse = slots[self.random.integers(len(slots))], self.engine.prefix_reuse
        token_ids = list(text_ids(self.texts[slot].prompt))
        if len(token_ids) < self.engine.measure(self.texts[slot].prompt):
            return  # tensors stand between them
        token_ids += self.texts[slot].token_ids if reuse.takes_text else []
        end = min(len(token_ids), COPIED) // reuse.unit * reuse.unit
        if end:
            ends = sorted({end, int(self.random.integers(1, end // reuse.unit + 1)) * reuse.unit})
            pieces = [self.engine.copy_out(slot, *run) for run in pairwise([0, *ends])]
            assert sum(piece.num_tokens for piece in pieces) == end
            assert all(piece.num_bytes > 0 for piece in pieces)
            self.copied.append((token_ids[:end], pieces))

    def _open_with_copy(self, engine: ChunkedEngine) -> None:
        token_ids, pieces = self.copied[self.random.integers(len(self.copied))]
        new_ids = [int(i) for i in self.random.integers(8, self.vocab_size, self.random.integers(1, 4))]
        prompt = text_prompt(*token_ids, *new_ids)
        self.unread[engine.reserve(prompt, pieces)] = prompt, len(new_ids)

    def _extension(self, slot: Slot) -> Extension:
        text = self.texts[slot]
        ids = [int(i) for i in self.random.integers(8, self.vocab_size, self.random.integers(1, 7))]
        if text.nodes and self.random.random() < 0.5:
            before = len(text.nodes)
            parents = [int(self.random.integers(0, before + i + 1)) for i in range(len(ids))]
            return Extension(slot, ids, TreeShape((*text.parents, *parents)))
        if TreeShape(tuple(text.parents)).is_chain and self.random.random() < 0.5:  # a text may follow a chain
            text.token_ids += text.nodes
            text.nodes, text.parents = [], []
        self._decide(slot)
        if self.random.random() < 0.5:
            num_rows = [None, 0, 1, len(ids)][self.random.integers(4)]
            return Extension.chain(slot, ids, num_rows=num_rows)
        parents = [int(self.random.integers(max(0, i - 3), i + 1)) for i in range(len(ids))]
        return Extension(slot, ids, TreeShape(tuple(parents)))

    def _check_chunk(self, chunk: PromptChunk, rows: Array) -> None:
        prompt, left = self.unread[chunk.slot]
        if chunk.num_tokens < left:
            assert rows.shape[0] == 0
            self.unread[chunk.slot] = prompt, left - chunk.num_tokens
            return
        assert rows.shape[0] == 1
        del self.unread[chunk.slot]
        self.texts[chunk.slot] = _Text(prompt)
        self._compare(rows[0], self.from_scratch(prompt, [])[-1])

    def _check_rows(self, extension: Extension, rows: Array) -> None:
        text = self.texts[extension.slot]
        wanted = len(extension.token_ids) if extension.num_rows is None else extension.num_rows
        assert wanted <= rows.shape[0] <= len(extension.token_ids)  # an engine may give all
        text.nodes += extension.token_ids
        text.parents = list(extension.shape.parents)
        first = len(text.nodes) - rows.shape[0]
        for index in range(rows.shape[0] - wanted, rows.shape[0]):
            self._compare(rows[index], self.from_scratch(text.prompt, text.upto(first + index))[-1])

    def _decide_some_trees(self) -> None:
        for slot in self._some_slots():
            self._decide(slot)

    def _decide(self, slot: Slot) -> None:
        """Keep a random path of an undecided tree."""
        text = self.texts[slot]
        if not text.nodes:
            return
        path = text.path(int(self.random.integers(0, len(text.nodes))))[: self.random.integers(0, 9)]
        self.engine.keep_path(slot, len(text.token_ids), path)
        text.token_ids += [text.nodes[i] for i in path]
        text.nodes, text.parents = [], []

    def _some_slots(self) -> list[Slot]:
        return [slot for slot in list(self.texts) if self.random.random() < 0.4]

    def _make_prompt(self, random: np.random.Generator) -> Prompt:
        return text_prompt(*(int(i) for i in random.integers(8, self.vocab_size, random.integers(1, 13))))

    def _compare(self, rows: Array, expected: np.ndarray) -> None:
        got = np.asarray(rows)
        difference = float(np.abs(got - expected).max()) / max(1.0, float(np.abs(expected).max()))
        self.largest_difference = max(self.largest_difference, difference)
        assert difference <= self.tolerance
