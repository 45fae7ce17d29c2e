"""The self-test of a target's rows: is a row, to the bit, the same whatever is read with it, before it, or rejected?

One short text is read one token at a time. Then it is read again in the ways that sessions read texts, and each row is
compared with the first one:

    blocks of 2, 5, 8, 33    tokens in a pass, each time after a crop
    trees                    one after the other, of each of which a path is kept and the others are rejected, or all
    crops                    other tokens are read and cropped, and the text goes on
    two slots                another slot reads its prompt, blocks and trees in the same passes
    swapped                  the slot is swapped out, another reads the prompt in its place, and the text goes on
    restored                 as after an eviction: the prompt in other chunks, and the text behind it like a prompt
    reused                   a longer prompt begins with what another slot has read of it, a text behind it too

It is an experiment and no proof: another text, a longer one, or more slots may behave in another way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from array_api_compat import is_torch_array

from skydraft.core import Prompt, TokenSegment, TreeShape
from skydraft.engines.base import (
    Array,
    ChunkedEngine,
    Engine,
    EngineLimits,
    Extension,
    KvPiece,
    NarrowEngine,
    Prefilled,
    PromptChunk,
    RowPromise,
    Slot,
)
from skydraft.errors import PromptRejected

Floats = npt.NDArray[np.float32]
NumberedRow: TypeAlias = tuple[int, Array]  # after so many tokens of the text: float [vocab_size]

NUM_PROBABLE = 32  # logits of a row that `gap_change` looks at
SEED = 10
NUM_TEXTS = 8
LEAST_LENGTH = 48  # of a slot, to have room for all ways but the last
NUM_CLOSED = 20  # tokens of a long prompt, of which the last one ends a message
NUM_NOT_REUSED = 5
REUSED_TEXT = 2  # tokens of a text behind it

# A tree at the text's end: "x" marks tokens that are none of the text's. The path of the text is 0, 2, 5, 6.
#   0 -> 1x -> 3x;  0 -> 2 -> 4x;  2 -> 5 -> 6
TREE = TreeShape((0, 1, 1, 2, 3, 3, 6))
TREE_PATH = (0, 2, 5, 6)


class TextLengths(NamedTuple):
    """How much is read: some engines compute long texts and wide passes by other kernels.

    prompt, text: tokens. blocks: sizes, each with how many tokens of the text are read in such blocks.
    """

    prompt: int = 24
    text: int = 33
    blocks: tuple[tuple[int, int], ...] = ((2, 4), (5, 10), (8, 16), (33, 33))


DEFAULT_LENGTHS = TextLengths()


class RowDifferences(NamedTuple):
    """What a self-test found.

    ways: in which rows were not the same, by their names above.
    gap_change: as `RowPromise`. largest: of the differences of single logits.
    num_rows: that were compared. total_s: how long it took.
    """

    ways: tuple[str, ...]
    gap_change: float
    largest: float
    num_rows: int
    total_s: float


def hold_to_promise(engine: Engine, lengths: TextLengths = DEFAULT_LENGTHS) -> RowDifferences | None:
    """Test an engine, of which no slot is open, and have its promise say what was found.

    An engine that promised invariant rows and has others does not promise them any more.

    Returns:
        None where slots have no room for the test's text; the promise then stands as it was declared.
    """
    if engine.limits.max_length < LEAST_LENGTH:
        return None
    found, promise = compare_rows(engine, lengths), engine.row_promise
    if promise.is_invariant and found.ways:
        promise = RowPromise(False, f"its self-test found other logits in {', '.join(found.ways)}")
    engine.row_promise = promise._replace(gap_change=found.gap_change)
    return found


def compare_rows(engine: Engine, lengths: TextLengths = DEFAULT_LENGTHS) -> RowDifferences:
    """Read one text in all ways and compare its rows. No slot is open, before and after."""
    start_s = time.monotonic()
    reader = _Reader(engine, _text_for(engine, lengths))
    try:
        comparison = _Comparison({index: _on_host(row) for index, row in reader.one_by_one()})
        for way, read in reader.ways(lengths.blocks):
            comparison.add(way, read())
    finally:
        reader.close()
    return comparison.result(time.monotonic() - start_s)


class _Text(NamedTuple):
    """A prompt and what follows it. others: for each token of the text one that does not stand there."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    others: tuple[int, ...]

    @classmethod
    def draw(cls, num_tokens: int, limits: EngineLimits, lengths: TextLengths, seed: int) -> _Text:
        prompt_length = min(lengths.prompt, limits.max_length // 2)
        text_length = min(lengths.text, limits.max_length - prompt_length - 1)
        rng = np.random.default_rng(seed)
        prompt_ids, ids = rng.integers(num_tokens, size=prompt_length), rng.integers(num_tokens, size=text_length)
        others = (ids + rng.integers(1, num_tokens, size=text_length)) % num_tokens
        return cls(tuple(prompt_ids.tolist()), tuple(ids.tolist()), tuple(others.tolist()))

    @property
    def prompt(self) -> Prompt:
        return Prompt((TokenSegment(self.prompt_ids),))


class _LongPrompt(NamedTuple):
    """A prompt that has more tokens than an engine lets prompts share, and a few tokens of text behind it.

    num_reused: of the prompt's tokens.
    """

    prompt_ids: tuple[int, ...]
    text_ids: tuple[int, ...]
    num_reused: int

    def prompt(self, num_text: int = 0) -> Prompt:
        """With so many tokens of the text."""
        return Prompt((TokenSegment((*self.prompt_ids, *self.text_ids[:num_text])),))

    @classmethod
    def of(cls, text: _Text, engine: ChunkedEngine) -> _LongPrompt | None:
        """As a text has tokens; None where a slot has no room for it."""
        reuse = engine.prefix_reuse
        num_reused = NUM_CLOSED + reuse.unit  # where pieces are long, one that ends early and one that does not
        ids = list((text.prompt_ids * -(-num_reused // len(text.prompt_ids)))[:num_reused])
        for closing_id in filter(engine.vocabulary.token, sorted(reuse.closing)[:1]):
            ids[NUM_CLOSED - 1] = closing_id
        *_, num_reused = reuse.ends(ids)
        ids = [*ids[:num_reused], *text.prompt_ids[:NUM_NOT_REUSED]]
        if len(ids) + REUSED_TEXT + 1 > engine.limits.max_length:
            return None
        return cls(tuple(ids), text.ids[: REUSED_TEXT + 1], num_reused)


def _text_for(engine: Engine, lengths: TextLengths) -> _Text:
    """A text that the model takes: some have ids that stand for sound and cannot stand alone."""
    texts = [_Text.draw(engine.vocabulary.num_tokens, engine.limits, lengths, SEED + i) for i in range(NUM_TEXTS)]
    return next((text for text in texts if _is_taken(engine, text.prompt)), texts[0])


def _is_taken(engine: Engine, prompt: Prompt) -> bool:
    try:
        return not isinstance(engine, ChunkedEngine) or bool(engine.measure(prompt))
    except PromptRejected:
        return False


class _Comparison:
    """Rows against those of the first reading."""

    def __init__(self, expected: dict[int, Floats]) -> None:
        self._expected = expected
        num_probable = min(NUM_PROBABLE, len(expected[0]))
        self._probable = {index: np.argpartition(row, -num_probable)[-num_probable:] for index, row in expected.items()}
        self._ways: dict[str, None] = {}
        self._gap_change = self._largest = 0.0
        self._num_rows = 0

    def add(self, way: str, rows: Iterable[NumberedRow]) -> None:
        for index, array in rows:
            self._num_rows += 1
            expected, row = self._expected[index], _on_host(array)
            if row.tobytes() == expected.tobytes():
                continue
            self._ways[way] = None
            are_told = np.isfinite(row) & np.isfinite(expected)  # a NarrowEngine tells the largest alone
            change = np.zeros(len(row))
            np.subtract(row, expected, out=change, where=are_told)
            self._largest = max(self._largest, float(np.abs(change).max()))
            self._gap_change = max(self._gap_change, float(np.ptp(change[self._probable[index]])))

    def result(self, total_s: float) -> RowDifferences:
        return RowDifferences(tuple(self._ways), self._gap_change, self._largest, self._num_rows, total_s)


class _Reader:
    """Reads the text in all ways. Each leaves the first slot open, at some place of the text."""

    def __init__(self, engine: Engine, text: _Text) -> None:
        self._engine = engine
        self._chunked = engine if isinstance(engine, ChunkedEngine) else None
        self._text = text
        self._length = len(text.ids)
        self._long_prompt = None if self._chunked is None else _LongPrompt.of(text, self._chunked)
        self._slots: list[Slot] = []

    def ways(self, blocks: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Callable[[], Iterator[NumberedRow]]]]:
        for size, length in blocks:
            yield f"blocks of {size}", partial(self._in_blocks, size, min(length, self._length))
        yield "trees", self._in_trees
        yield "crops", self._after_crops
        if self._engine.limits.num_slots > 1:
            yield "two slots", self._with_another_slot
        if self._chunked is not None:
            yield "swapped", partial(self._swapped, self._chunked)
        yield "restored", self._restored
        if self._chunked is not None and self._long_prompt is not None:
            yield "reused", partial(self._reused, self._chunked, self._long_prompt)

    def close(self) -> None:
        while self._slots:
            self._engine.close(self._slots.pop())

    def one_by_one(self) -> Iterator[NumberedRow]:
        if self._chunked is not None and self._long_prompt is not None:
            yield from self._read_long(self._chunked, self._long_prompt)
            self.close()
        yield 0, self._open()
        yield from self._in_blocks(1, self._length)

    def _in_blocks(self, size: int, length: int) -> Iterator[NumberedRow]:
        (slot,) = self._slots
        self._engine.crop(slot, 0)
        yield from self._go_on(slot, 0, length, size)

    def _in_trees(self) -> Iterator[NumberedRow]:
        (slot,) = self._slots
        self._engine.crop(slot, 0)
        start = 0
        for num_kept in (4, 2, 0, 3):
            (rows,) = self._engine.extend([self._tree(slot, start)])
            yield from _of_path(start, rows)
            self._keep(slot, start, num_kept)
            start += num_kept
        yield from self._go_on(slot, start, start + 3)

    def _after_crops(self) -> Iterator[NumberedRow]:
        (slot,) = self._slots
        self._engine.crop(slot, 0)
        for start in (0, 2):
            self._engine.extend([Extension.chain(slot, self._text.others[start : start + 5])])
            self._engine.crop(slot, start)
            yield from self._go_on(slot, start, start + 2)

    def _with_another_slot(self) -> Iterator[NumberedRow]:
        (slot,) = self._slots
        self._engine.crop(slot, 0)
        start = yield from self._open_beside(slot)
        other, other_start = self._slots[-1], 0
        for size, other_size in ((1, 1), (2, 5), (1, 3)):
            chains = self._chain(slot, start, size), self._chain(other, other_start, other_size)
            rows, other_rows = self._engine.extend(chains)
            yield from _numbered(start, rows)
            yield from _numbered(other_start, other_rows)
            start, other_start = start + size, other_start + other_size
        self._engine.crop(other, 0)
        rows, other_rows = self._engine.extend([self._chain(slot, start, 1), self._tree(other, 0)])
        yield from _numbered(start, rows)
        yield from _of_path(0, other_rows)
        self._keep(other, 0, 2)
        yield from self._go_on(slot, start + 1, start + 2)
        yield from self._go_on(other, 2, 3)
        self._engine.close(self._slots.pop())
        yield from self._go_on(slot, start + 2, start + 4)

    def _swapped(self, engine: ChunkedEngine) -> Iterator[NumberedRow]:
        (slot,) = self._slots
        engine.crop(slot, 2)
        swapped = engine.swap_out(self._slots.pop())
        yield 0, self._open()
        self.close()
        self._slots.append(engine.swap_in(swapped))
        yield from self._go_on(self._slots[0], 2, 4)

    def _restored(self) -> Iterator[NumberedRow]:
        self.close()
        yield 0, self._open(chunks=(7, 1))
        (slot,) = self._slots
        num_known = self._length - 5
        self._engine.extend([Extension.chain(slot, self._text.ids[:num_known], num_rows=0)])
        yield from self._go_on(slot, num_known, num_known + 1)
        yield from self._go_on(slot, num_known + 1, self._length, 4)

    def _reused(self, engine: ChunkedEngine, long: _LongPrompt) -> Iterator[NumberedRow]:
        self.close()
        for _ in self._read_long(engine, long):
            pass
        (slot,) = self._slots
        read = engine.copy_out(slot, 0, long.num_reused)
        self.close()
        yield from self._read_long(engine, long, [read])
        if engine.prefix_reuse.takes_text:
            num_read = len(long.prompt_ids) + REUSED_TEXT - 1
            read = engine.copy_out(self._slots[0], 0, num_read)
            self.close()
            self._slots.append(engine.reserve(long.prompt(REUSED_TEXT), [read]))
            ((row,),) = engine.extend([PromptChunk(self._slots[0], 1)])
            yield self._length + 1 + REUSED_TEXT, row

    def _read_long(
        self, engine: ChunkedEngine, long: _LongPrompt, read: Sequence[KvPiece] = ()
    ) -> Iterator[NumberedRow]:
        """The long prompt and a few tokens behind it; their numbers follow those of the text. Leaves its slot open."""
        num_unread = len(long.prompt_ids) - sum(piece.num_tokens for piece in read)
        slot = engine.reserve(long.prompt(), read)
        self._slots.append(slot)
        ((row,),) = engine.extend([PromptChunk(slot, num_unread)])
        yield self._length + 1, row
        for index, token_id in enumerate(long.text_ids, 1):
            ((row,),) = engine.extend([Extension.chain(slot, [token_id])])
            yield self._length + 1 + index, row

    def _open(self, chunks: Sequence[int] = ()) -> Array:
        """Have a slot read the prompt; in chunks of these sizes and one of the rest, where the engine takes any.

        Returns:
            float [vocab_size], after the prompt.
        """
        if self._chunked is None or not chunks:
            prefilled = _open_narrowly(self._engine, self._text.prompt)
            self._slots.append(prefilled.slot)
            return prefilled.logits
        slot = self._reserve(self._chunked)
        for size in self._sizes(chunks):
            (rows,) = self._chunked.extend([PromptChunk(slot, size)])
        return rows[0]

    def _open_beside(self, slot: Slot) -> Generator[NumberedRow, None, int]:
        """Open another slot, which reads its prompt in passes with tokens of the first.

        Returns:
            How many tokens of the text the first has read.
        """
        if self._chunked is None:
            yield 0, self._open()
            return 0
        other, start = self._reserve(self._chunked), 0
        for size, prompt_size in enumerate(self._sizes((5, 1)), 1):
            rows, of_prompt = self._chunked.extend([self._chain(slot, start, size), PromptChunk(other, prompt_size)])
            yield from _numbered(start, rows)
            start += size
        yield 0, of_prompt[0]
        return start

    def _reserve(self, engine: ChunkedEngine) -> Slot:
        self._slots.append(engine.reserve(self._text.prompt))
        return self._slots[-1]

    def _sizes(self, first: Sequence[int]) -> tuple[int, ...]:
        return (*first, len(self._text.prompt_ids) - sum(first))

    def _go_on(self, slot: Slot, start: int, end: int, size: int = 1) -> Iterator[NumberedRow]:
        for begin in range(start, end, size):
            (rows,) = self._engine.extend([self._chain(slot, begin, min(size, end - begin))])
            yield from _numbered(begin, rows)

    def _chain(self, slot: Slot, start: int, size: int) -> Extension:
        return Extension.chain(slot, self._text.ids[start : start + size])

    def _tree(self, slot: Slot, start: int) -> Extension:
        ids, others = self._text.ids[start:], self._text.others[start:]
        token_ids = (ids[0], others[1], ids[1], others[2], others[2], ids[2], ids[3])
        return Extension(slot, token_ids, TREE)

    def _keep(self, slot: Slot, start: int, num_kept: int) -> None:
        """Keep so much of the text's path through a tree, and reject the rest."""
        if num_kept:
            self._engine.keep_path(slot, start, TREE_PATH[:num_kept])
        else:
            self._engine.crop(slot, start)


def _numbered(start: int, rows: Array) -> Iterator[NumberedRow]:
    return ((start + index + 1, row) for index, row in enumerate(rows))


def _of_path(start: int, rows: Array) -> Iterator[NumberedRow]:
    return ((start + depth, rows[node]) for depth, node in enumerate(TREE_PATH, 1))


def _open_narrowly(engine: Engine, prompt: Prompt) -> Prefilled:
    """Open a slot; of an engine for which whole rows are slow or impossible with the largest logits alone."""
    if isinstance(engine, NarrowEngine):
        return engine.open_narrow(prompt, min(NUM_PROBABLE, engine.vocabulary.size))
    return engine.open(prompt)


def _on_host(row: Array) -> Floats:
    return np.array(row.cpu().numpy() if is_torch_array(row) else row, dtype=np.float32)
