"""What engines of ours have in common that read embeddings: the slots, what is kept of them, and what is read back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from skydraft.core import Prompt
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
from skydraft.engines.prompt_checks import check_prompt, num_after_tensors, require_finite
from skydraft.engines.slots import Ints, Placement, SlotBook
from skydraft.text.vocabulary import Vocabulary

Embeddings = TypeVar("Embeddings")


class SlotStore(Protocol):
    """The keys and values of all slots."""

    def copy(self, slot: Slot, start: int, end: int) -> Any:
        """A run of a slot's entries: arrays with `nbytes`, or one array of such."""

    def paste(self, slot: Slot, entries: Any, start: int = 0) -> None:
        """Give a slot the entries of another, as `copy` gave them."""

    def move(self, slot: Slot, sources: Ints, start: int) -> None:
        """Move the entries at indexes `sources` to a run that begins at `start`."""

    def wipe(self, slot: Slot, length: int) -> None:
        """Zero a slot's entries."""


class EmbeddingSlots(ABC, Generic[Embeddings]):
    """Slots of a model that is given embeddings where a prompt has tensors. See `engines.base.ChunkedEngine`.

    Args:
        store: of the slots.
        prefill_chunk: tokens of a prompt that `open` reads at once.
    """

    def __init__(
        self, vocabulary: Vocabulary, limits: EngineLimits, store: SlotStore, prefill_chunk: int, promise: RowPromise
    ) -> None:
        self.name = vocabulary.name
        self.vocabulary = vocabulary
        self.limits = limits
        self.row_promise = promise
        self.prefix_reuse = PrefixReuse(closing=frozenset(vocabulary.end_ids))
        self._store = store
        self._prefill_chunk = prefill_chunk
        self._book = SlotBook(limits)
        self._unread: dict[Slot, Embeddings] = {}  # of prompts with tensors that are being read

    @abstractmethod
    def _token_ids(self, prompt: Prompt) -> list[int]:
        """One id each, placeholders for tensors. Raises: PromptRejected: the model cannot take a segment."""

    @abstractmethod
    def _embeddings(self, prompt: Prompt, token_ids: list[int]) -> Embeddings | None:
        """[num_tokens, hidden_size]; None for a prompt of token ids only. Raises: PromptRejected."""

    @abstractmethod
    def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Any]:
        """See `engines.base.ChunkedEngine`."""

    def measure(self, prompt: Prompt) -> int:
        return len(self.prompt_ids(prompt))

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        token_ids = self._token_ids(prompt)
        check_prompt(token_ids, self.vocabulary.size)
        self._book.require_room(len(token_ids))  # before a tower listens to a clip for nothing
        return token_ids

    def reserve(self, prompt: Prompt, beginning: Sequence[KvPiece] = ()) -> Slot:
        token_ids, num_held = self.prompt_ids(prompt), sum(piece.num_tokens for piece in beginning)
        has_tensor_left = num_held < len(token_ids) - num_after_tensors(prompt)
        embeddings = self._embeddings(prompt, token_ids) if has_tensor_left else None
        slot, start = self._book.reserve(token_ids, num_held), 0
        if embeddings is not None:
            self._unread[slot] = embeddings
        for piece in beginning:
            self._store.paste(slot, piece.content, start)
            start += piece.num_tokens
        return slot

    def open(self, prompt: Prompt) -> Prefilled:
        slot = self.reserve(prompt)
        try:
            while num_unread := self._book.num_unread(slot):
                (logits,) = self.extend([PromptChunk(slot, min(num_unread, self._prefill_chunk))])
            require_finite(logits, self.name)
        except BaseException:
            self.close(slot)
            raise
        return Prefilled(slot, logits[0])

    def crop(self, slot: Slot, keep_length: int) -> None:
        self._book.crop(slot, keep_length)

    def keep_path(self, slot: Slot, start: int, path: Sequence[int], rest: Sequence[int] = ()) -> None:
        first = self._book.tree_start(slot)
        sources = self._book.keep_path(slot, start, path, rest)
        if sources.tolist() != list(range(first, first + len(sources))):
            self._store.move(slot, sources, first)

    def close(self, slot: Slot) -> None:
        self._unread.pop(slot, None)
        self._store.wipe(slot, self._book.release(slot))

    def copy_out(self, slot: Slot, start: int, end: int) -> KvPiece:
        self._book.require_held(slot, start, end)
        entries = self._store.copy(slot, start, end)
        return KvPiece(end - start, _num_bytes(entries), entries)

    def swap_out(self, slot: Slot) -> SwappedSlot:
        settled = self._book.swap_out(slot)
        entries = self._store.copy(slot, 0, settled.length)
        self._store.wipe(slot, settled.high_water)
        return SwappedSlot(_num_bytes(entries), (settled, entries))

    def swap_in(self, swapped: SwappedSlot) -> Slot:
        settled, entries = swapped.content
        slot = self._book.swap_in(settled)
        self._store.paste(slot, entries)
        return slot

    def _commit(self, placements: Sequence[Placement]) -> None:
        """A forward pass has read them."""
        self._book.commit(placements)
        for slot in [slot for slot in self._unread if not self._book.num_unread(slot)]:
            del self._unread[slot]


def _num_bytes(entries: Any) -> int:
    return sum(entry.nbytes for entry in entries)
