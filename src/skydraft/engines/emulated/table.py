"""An engine whose logits are rows of a table: for tests, and for measuring everything but the model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from skydraft.core import Prompt, TensorSegment
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
from skydraft.engines.emulated.words import word_vocabulary
from skydraft.engines.prompt_checks import check_prompt, reject_tensors, text_ids
from skydraft.engines.slots import Ints, Placement, SlotBook
from skydraft.text.vocabulary import Vocabulary

Floats = npt.NDArray[np.float32]

DEFAULT_LIMITS = EngineLimits(num_slots=8, max_length=4096)
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio in 64 bits, as in Fibonacci hashing


class TableEngine:
    """Logits are a pure function of the last `order` tokens of prompt and text; its errors are those of Engine.

    Args:
        table: float32 [num_rows, vocab_size]. With num_rows = vocab_size ** order, a context has the row
            sum(token[-1 - j] * vocab_size ** j) (missing tokens count as 0); with fewer rows a hash chooses one.
        accepts_tensors: else a tensor segment is rejected. Accepted ones shift the rows by a digest of their bytes.
    """

    def __init__(
        self,
        table: Floats,
        order: int = 1,
        *,
        limits: EngineLimits = DEFAULT_LIMITS,
        vocabulary: Vocabulary | None = None,
        accepts_tensors: bool = False,
    ) -> None:
        self._table = np.array(table, dtype=np.float32)
        self._table.flags.writeable = False  # extend gives out views
        self._num_rows, self._vocab_size = self._table.shape
        self._order = order
        self._is_exact = self._num_rows == self._vocab_size**order
        self._factors = self._context_factors()
        self._offsets = np.arange(order)
        self.vocabulary = vocabulary or word_vocabulary(self._vocab_size)
        self.name = self.vocabulary.name
        self.limits = limits
        self.row_promise = RowPromise(True, "rows are read from a table")
        self.prefix_reuse = PrefixReuse()
        self._accepts_tensors = accepts_tensors
        self._book = SlotBook(limits)
        # Entry i of a slot lies at order + i, behind `order` zeros that stand for what is missing.
        self._tokens = np.zeros((limits.num_slots, order + limits.max_length), dtype=np.int64)
        self._shifts = [0] * limits.num_slots

    def open(self, prompt: Prompt) -> Prefilled:
        slot = self.reserve(prompt)
        (logits,) = self.extend([PromptChunk(slot, self._book.num_unread(slot))])
        return Prefilled(slot, logits[0])

    def measure(self, prompt: Prompt) -> int:
        return len(self.prompt_ids(prompt))

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        token_ids = self._token_ids(prompt)
        self._book.require_room(len(token_ids))
        return token_ids

    def reserve(self, prompt: Prompt, beginning: Sequence[KvPiece] = ()) -> Slot:
        held: Ints = np.concatenate([np.zeros(0, np.int64), *(piece.content for piece in beginning)])
        slot = self._book.reserve(self._token_ids(prompt), len(held))
        self._tokens[slot, self._order : self._order + len(held)] = held
        self._shifts[slot] = _tensor_digest(prompt)
        return slot

    def copy_out(self, slot: Slot, start: int, end: int) -> KvPiece:
        self._book.require_held(slot, start, end)
        tokens = self._tokens[slot, self._order + start : self._order + end].copy()
        return KvPiece(len(tokens), tokens.nbytes, tokens)

    def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Floats]:
        placements = self._book.place(extensions, self._vocab_size)
        for placement in placements:
            begin = self._order + placement.start
            self._tokens[placement.slot, begin : begin + len(placement.token_ids)] = placement.token_ids
        self._book.commit(placements)
        return [self._logits(placement) for placement in placements]

    def crop(self, slot: Slot, keep_length: int) -> None:
        self._book.crop(slot, keep_length)

    def keep_path(self, slot: Slot, start: int, path: Sequence[int], rest: Sequence[int] = ()) -> None:
        begin = self._order + self._book.tree_start(slot)
        kept = self._order + self._book.keep_path(slot, start, path, rest)
        self._tokens[slot, begin : begin + len(kept)] = self._tokens[slot, kept]

    def close(self, slot: Slot) -> None:
        self._book.release(slot)

    def swap_out(self, slot: Slot) -> SwappedSlot:
        settled = self._book.swap_out(slot)
        tokens = self._tokens[slot, : self._order + settled.length].copy()
        return SwappedSlot(tokens.nbytes, (settled, tokens, self._shifts[slot]))

    def swap_in(self, swapped: SwappedSlot) -> Slot:
        settled, tokens, shift = swapped.content
        slot = self._book.swap_in(settled)
        self._tokens[slot, : len(tokens)] = tokens
        self._shifts[slot] = shift
        return slot

    def _token_ids(self, prompt: Prompt) -> list[int]:
        if not self._accepts_tensors:
            reject_tensors(prompt, self.name)
        token_ids = text_ids(prompt)
        check_prompt(token_ids, self._vocab_size)
        return token_ids

    def _logits(self, placement: Placement) -> Floats:
        """[num_rows, vocab_size]: by windows [num_tokens, order] of the last tokens up to each new one, on its path."""
        if not placement.num_rows:
            return self._table[:0]
        tokens, is_chain = self._tokens[placement.slot], placement.tree.shape.is_chain
        if is_chain:
            first = placement.end if placement.num_rows == 1 else placement.start + 1
            windows: Ints = tokens[np.arange(first, placement.end + 1)[:, None] + self._offsets]
        else:
            nodes = range(placement.start - placement.tree.start, len(placement.tree.shape))
            windows = np.stack([tokens[self._path_indexes(placement, node)] for node in nodes])
        contexts = (windows.astype(np.uint64) * self._factors).sum(axis=1, dtype=np.uint64)
        if not self._is_exact:
            contexts = (contexts * _HASH_FACTOR) >> np.uint64(33)
        rows: Ints = (contexts.astype(np.int64) + self._shifts[placement.slot]) % self._num_rows
        # One row is a view, whatever the size of the vocabulary.
        return self._table[rows[0] : rows[0] + 1] if len(rows) == 1 else self._table[rows]

    def _path_indexes(self, placement: Placement, node: int) -> list[int]:
        """Where the last `order` tokens up to a node lie."""
        root = self._order + placement.tree.start
        indexes: list[int] = []
        parent = node + 1
        while parent and len(indexes) < self._order:
            indexes.append(root + parent - 1)
            parent = placement.tree.shape.parents[parent - 1]
        return [*range(root - self._order + len(indexes), root), *reversed(indexes)]

    def _context_factors(self) -> npt.NDArray[np.uint64]:
        """uint [order]: what each token of a window counts."""
        base = self._vocab_size if self._is_exact else 2 * self._vocab_size + 1
        return np.array([pow(base, j, 2**64) for j in reversed(range(self._order))], dtype=np.uint64)


def _tensor_digest(prompt: Prompt) -> int:
    """0 without tensors, else 32 bits that depend on their bytes."""
    tensors = [segment for segment in prompt.segments if isinstance(segment, TensorSegment)]
    if not tensors:
        return 0
    digest = hashlib.blake2b(digest_size=4)
    for tensor in tensors:
        digest.update(f"{tensor.name} {tensor.dtype} {tensor.shape} ".encode() + tensor.data)
    return int.from_bytes(digest.digest())
