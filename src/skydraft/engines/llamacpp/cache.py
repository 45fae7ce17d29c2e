"""A llama.cpp context: the KV cache of one text or of several, and the passes that read tokens into it."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
import numpy.typing as npt

from skydraft.engines.llamacpp.branches import BranchBook, BranchPlan, Copy, Cut, SequenceId
from skydraft.engines.llamacpp.file import LlamaFile, complaints, reason
from skydraft.engines.slots import Placement
from skydraft.errors import EngineError

Floats = npt.NDArray[np.float32]

_TO_END = -1  # llama_memory_seq_rm: up to the last position


class LlamaCache:
    """Texts are sequences of one context with a unified KV cache; so are the branches of their trees.

    The tokens that `read` reads are there for good after `commit`, and gone after `undo`.

    Args:
        context: llama_context_p of the file's model; the cache frees it.
        branches: its own sequences are those of the texts: placements and operations name a text by its sequence where
            an engine says slot.
        scratch: a sequence that `branches` does not lend: for pieces of texts on their way in and out.
    """

    def __init__(self, file: LlamaFile, context: Any, branches: BranchBook, scratch: SequenceId) -> None:
        self._context = context
        # Not at exit, as in LlamaFile; the file is an argument so that it outlives the context.
        weakref.finalize(self, _free, context, file).atexit = False
        self._memory = llama_cpp.llama_get_memory(context)
        self._name = file.name
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(file.vocab)
        self._num_cells = int(llama_cpp.llama_n_ctx(context))
        self._branches = branches
        self._scratch = scratch
        self._unsettled: list[BranchPlan] = []
        self._has_nan = False

    def read(self, placements: Sequence[Placement], max_rows: int | None = None) -> list[Floats]:
        """Read new tokens.

        Args:
            max_rows: tokens in one forward pass; None: all in one.
        Returns:
            For each placement num_rows rows of logits, or more: the last ones count.
        Raises:
            EngineError: a pass failed, or gave what is no number; `undo` takes what was read away again.
        """
        self._make_room(placements)
        plans = self._branches.plan(placements)
        self._unsettled += plans
        self._do(copy for plan in plans for copy in plan.copies)
        batch = _TokenBatch.of(plans)
        rows = np.concatenate([self._decode(part) for part in batch.parts(max_rows)])
        ends = np.cumsum([_num_outputs(placement) for placement in placements])
        return np.split(rows, ends[:-1])

    def commit(self) -> None:
        self._branches.commit(self._unsettled)
        self._unsettled = []

    def undo(self) -> None:
        self._do(cut for plan in reversed(self._unsettled) for cut in plan.undo())
        self._unsettled = []
        if self._has_nan:
            self._purge()
            self._has_nan = False

    def crop(self, text: SequenceId, length: int) -> None:
        self._do(self._branches.crop(text, length))

    def keep(self, text: SequenceId, path: Sequence[int], rest: Sequence[int]) -> None:
        self._do(self._branches.keep(text, path, rest))

    def close(self, text: SequenceId) -> None:
        self._do(self._branches.close(text))

    def copy(self, text: SequenceId) -> ctypes.Array[ctypes.c_uint8]:
        """What the cache holds of a text, in llama.cpp's own form."""
        size: int = llama_cpp.llama_state_seq_get_size(self._context, text)
        state = (ctypes.c_uint8 * size)()
        llama_cpp.llama_state_seq_get_data(self._context, state, len(state), text)
        return state

    def paste(self, text: SequenceId, state: ctypes.Array[ctypes.c_uint8]) -> None:
        """Have a text, of which the cache holds nothing, continue from what `copy` gave.

        Raises:
            EngineError: llama.cpp has no room for it.
        """
        if not llama_cpp.llama_state_seq_set_data(self._context, state, len(state), text):
            raise EngineError(f"llama.cpp cannot take up a text of {self._name} again: use fewer or shorter slots")

    def copy_piece(self, text: SequenceId, start: int, end: int) -> ctypes.Array[ctypes.c_uint8]:
        """What the cache holds of a text's tokens at positions start to end - 1."""
        self._do([Copy(self._scratch, text, start, end)])
        piece = self.copy(self._scratch)
        self._do([Cut(self._scratch, 0)])
        return piece

    def paste_piece(self, text: SequenceId, piece: ctypes.Array[ctypes.c_uint8], start: int, end: int) -> None:
        """Put what `copy_piece` gave behind what the cache holds of a text. Raises: as `paste`."""
        self.paste(self._scratch, piece)
        self._do([Copy(text, self._scratch, start, end), Cut(self._scratch, 0)])

    def _decode(self, batch: _TokenBatch) -> Floats:
        """One forward pass; returns float [num_outputs, vocab_size]."""
        with complaints() as lines:
            status = llama_cpp.llama_decode(self._context, batch.as_llama_batch())
        if status:
            raise EngineError(
                f"llama.cpp cannot read {len(batch.token_ids)} tokens (status {status}: {reason(lines)}): use fewer or "
                "shorter slots where memory is short"
            )
        shape = batch.num_outputs, self._vocab_size
        if not batch.num_outputs:
            return np.empty(shape, dtype=np.float32)
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(self._context), shape)
        if not np.isfinite(logits).all():
            self._has_nan = True
            raise EngineError(f"{self._name} gives no finite logits after these {len(batch.token_ids)} tokens")
        return logits.copy()  # the next pass writes to the same place

    def _make_room(self, placements: Sequence[Placement]) -> None:
        """Where held cells leave too few: write the text anew, to the first cells, which leaves no cell to hold.

        An undecided tree cannot be moved, for its branches share cells.
        """
        if not self._branches.num_held:
            return
        (placement,) = placements  # what holds cells has one text
        is_settled = placement.start == placement.tree.start
        if is_settled and placement.end + self._branches.num_held > self._num_cells:
            text = placement.slot
            state = self.copy(text)
            self._branches.num_held = 0
            llama_cpp.llama_memory_clear(self._memory, False)
            self.paste(text, state)

    def _purge(self) -> None:
        """Wipe the cells that are free: texts share a cache, and what is masked must still be a number."""
        state = (ctypes.c_uint8 * llama_cpp.llama_state_get_size(self._context))()
        length = llama_cpp.llama_state_get_data(self._context, state, len(state))
        llama_cpp.llama_state_set_data(self._context, state, length)  # clears the whole cache first

    def _do(self, steps: Iterable[Copy | Cut]) -> None:
        for step in steps:
            if isinstance(step, Copy):
                llama_cpp.llama_memory_seq_cp(self._memory, step.source, step.sequence, step.start, step.end)
            elif not llama_cpp.llama_memory_seq_rm(self._memory, step.sequence, step.start, _TO_END):
                raise EngineError(f"llama.cpp cannot roll {self._name} back to position {step.start}")


class _TokenBatch(NamedTuple):
    """The tokens of a forward pass.

    token_ids, positions, counts: int32 [num_tokens]; counts: how many sequences a token belongs to.
    sequences: int32 [counts.sum()]: of the first token, then of the second, and so on.
    wants_logits: int8 [num_tokens].
    """

    token_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    sequences: npt.NDArray[np.int32]
    wants_logits: npt.NDArray[np.int8]

    @classmethod
    def of(cls, plans: Sequence[BranchPlan]) -> _TokenBatch:
        memberships = list(chain.from_iterable(plan.memberships for plan in plans))
        wanted = [_num_outputs(plan.placement) for plan in plans]
        unwanted = [len(plan.memberships) - count for plan, count in zip(plans, wanted, strict=True)]
        return cls(
            np.concatenate([np.asarray(plan.placement.token_ids, dtype=np.int32) for plan in plans]),
            np.concatenate([plan.placement.positions for plan in plans]).astype(np.int32),
            np.array([len(sequences) for sequences in memberships], dtype=np.int32),
            np.fromiter(chain.from_iterable(memberships), dtype=np.int32),
            np.repeat(np.tile([0, 1], len(plans)), np.stack([unwanted, wanted], axis=1).ravel()).astype(np.int8),
        )

    def parts(self, max_rows: int | None) -> Iterator[_TokenBatch]:
        """The same tokens in batches of at most so many; None: in one."""
        step = max_rows or len(self.token_ids)
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        for start in range(0, len(self.token_ids), step):
            end = min(start + step, len(self.token_ids))
            yield _TokenBatch(
                self.token_ids[start:end],
                self.positions[start:end],
                self.counts[start:end],
                self.sequences[ends[start] : ends[end]],
                self.wants_logits[start:end],
            )

    @property
    def num_outputs(self) -> int:
        return int(self.wants_logits.sum())

    def as_llama_batch(self) -> Any:
        """The same memory in llama.cpp's struct; valid only while this batch exists."""
        ends = np.cumsum(self.counts, dtype=np.uintp)
        firsts = self.sequences.ctypes.data + (ends - self.counts.astype(np.uintp)) * self.sequences.itemsize
        pointers = (ctypes.POINTER(llama_cpp.llama_seq_id) * len(firsts)).from_buffer_copy(firsts.astype(np.uintp))
        return llama_cpp.llama_batch(
            n_tokens=len(self.token_ids),
            token=self.token_ids.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token)),
            pos=self.positions.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_pos)),
            n_seq_id=self.counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=pointers,
            logits=self.wants_logits.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )


def _num_outputs(placement: Placement) -> int:
    """How many rows of logits llama.cpp is asked for: at least one, which says whether there are numbers in it."""
    return max(1, placement.num_rows)


def _free(context: Any, file: LlamaFile) -> None:
    llama_cpp.llama_free(context)
