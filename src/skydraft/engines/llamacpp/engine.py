"""GGUF models through llama.cpp: the engine of phones and laptops, and of clouds without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from skydraft.core import Prompt
from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import (
    EngineLimits,
    Extension,
    KvPiece,
    Prefilled,
    PrefixReuse,
    PromptChunk,
    RowPromise,
    Slot,
    SwappedSlot,
)
from skydraft.engines.llamacpp.branches import SequenceId
from skydraft.engines.llamacpp.cache import Floats, LlamaCache
from skydraft.engines.prompt_checks import only_text_ids
from skydraft.engines.slots import Placement, SlotBook, SlotTree
from skydraft.errors import EngineError, PromptRejected
from skydraft.text.vocabulary import Vocabulary


class Invariance(NamedTuple):
    """What an engine with a cache for each slot keeps to, so that each row has the same bits in all company.

    max_rows: tokens of texts and trees in one forward pass: llama.cpp computes more of them with other kernels.
    prompt_chunk: tokens of a prompt in one forward pass, at most. As many as are computed fast, and so with other
        kernels: therefore a prompt is always read in the same pieces, from its start, and in passes of its own.
    """

    max_rows: int
    prompt_chunk: int


class LlamaCppEngine:
    """Slots are sequences of llama.cpp's caches: all of one, or each of its own.

    Args:
        caches: one for all slots, or one for each.
        invariance: None: as fast as can be; what there is to read is read in one pass.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        caches: Sequence[LlamaCache],
        limits: EngineLimits,
        row_promise: RowPromise,
        invariance: Invariance | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.name = vocabulary.name
        self.limits = limits
        self.row_promise = row_promise
        # Where rows are invariant, tokens of a text have other bits than those of a prompt, read in other passes.
        self.prefix_reuse = PrefixReuse(
            1 if invariance is None else invariance.prompt_chunk,
            frozenset(vocabulary.end_ids),
            takes_text=invariance is None,
        )
        self._caches = caches
        self._invariance = invariance
        self._book = SlotBook(limits)
        self._prompts: dict[Slot, list[int]] = {}

    def measure(self, prompt: Prompt) -> int:
        return len(self.prompt_ids(prompt))

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        token_ids = only_text_ids(prompt, self.vocabulary)
        self._book.require_room(len(token_ids))
        return token_ids

    def reserve(self, prompt: Prompt, beginning: Sequence[KvPiece] = ()) -> Slot:
        token_ids = only_text_ids(prompt, self.vocabulary)
        slot = self._book.reserve(token_ids, sum(piece.num_tokens for piece in beginning))
        self._prompts[slot] = token_ids
        (cache, text), start = self._home(slot), 0
        try:
            for piece in beginning:
                cache.paste_piece(text, piece.content, start, start + piece.num_tokens)
                start += piece.num_tokens
        except EngineError:
            self.close(slot)
            raise
        return slot

    def copy_out(self, slot: Slot, start: int, end: int) -> KvPiece:
        self._book.require_held(slot, start, end)
        cache, text = self._home(slot)
        piece = cache.copy_piece(text, start, end)
        return KvPiece(end - start, len(piece), piece)

    def open(self, prompt: Prompt) -> Prefilled:
        slot = self.reserve(prompt)
        try:
            (logits,) = self.extend([PromptChunk(slot, self._book.num_unread(slot))])
        except BaseException as error:
            self.close(slot)
            if isinstance(error, EngineError):
                raise PromptRejected(f"in the prompt, {error}") from error
            raise
        return Prefilled(slot, logits[0])

    def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Floats]:
        placements = self._book.place(extensions, self.vocabulary.size)
        if not placements:
            return []
        try:
            if self._invariance is None:
                all_rows = self._caches[0].read(placements)
            else:
                all_rows = self._read_apart(placements, self._invariance.max_rows)
        except BaseException:
            for cache in self._caches:
                cache.undo()
            raise
        for cache in self._caches:
            cache.commit()
        self._book.commit(placements)
        return [rows[len(rows) - placement.num_rows :] for rows, placement in zip(all_rows, placements, strict=True)]

    def crop(self, slot: Slot, keep_length: int) -> None:
        cache, text = self._home(slot)
        cache.crop(text, self._book.crop(slot, keep_length))

    def keep_path(self, slot: Slot, start: int, path: Sequence[int], rest: Sequence[int] = ()) -> None:
        self._book.keep_path(slot, start, path, rest)
        cache, text = self._home(slot)
        cache.keep(text, path, rest)

    def close(self, slot: Slot) -> None:
        self._book.release(slot)
        del self._prompts[slot]
        cache, text = self._home(slot)
        cache.close(text)

    def swap_out(self, slot: Slot) -> SwappedSlot:
        settled = self._book.swap_out(slot)
        cache, text = self._home(slot)
        state = cache.copy(text)
        cache.close(text)
        return SwappedSlot(len(state), (settled, self._prompts.pop(slot), state))

    def swap_in(self, swapped: SwappedSlot) -> Slot:
        settled, prompt_ids, state = swapped.content
        slot = self._book.swap_in(settled)
        self._prompts[slot] = prompt_ids
        cache, text = self._home(slot)
        try:
            cache.paste(text, state)
        except EngineError:
            self.close(slot)
            raise
        return slot

    def _home(self, slot: Slot) -> tuple[LlamaCache, SequenceId]:
        return (self._caches[0], slot) if len(self._caches) == 1 else (self._caches[slot], 0)

    def _read_apart(self, placements: Sequence[Placement], max_rows: int) -> list[Floats]:
        all_rows = []
        for placement in placements:
            cache, text = self._home(placement.slot)
            prompt_ids = self._prompts[placement.slot]
            if placement.start < len(prompt_ids):
                rows = np.empty((0, self.vocabulary.size), dtype=np.float32)
                for start, end in self._whole_pieces(prompt_ids, placement.start, placement.end):
                    tree = SlotTree(start, TreeShape.chain(end - start))
                    is_last = end == len(prompt_ids)
                    (rows,) = cache.read([Placement(text, prompt_ids[start:end], start, tree, int(is_last))])
            else:
                (rows,) = cache.read([placement._replace(slot=text)], max_rows)
            all_rows.append(rows)
        return all_rows

    def _whole_pieces(self, prompt_ids: Sequence[int], start: int, end: int) -> Iterator[tuple[int, int]]:
        """Where those pieces of a prompt begin and end that are whole now that it goes from `start` to `end`.

        What is left of it is read with what comes next: so the pieces do not depend on the chunks that it comes in.
        """
        begin = 0
        for piece_end in (*self.prefix_reuse.ends(prompt_ids), len(prompt_ids)):
            if start < piece_end <= end and begin < piece_end:
                yield begin, piece_end
            begin = piece_end
