"""GGUF models through llama.cpp: the engine of phones and laptops, and of clouds without PyTorch."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
import numpy.typing as npt

from skydraft.core import Prompt
from skydraft.engines.base import EngineLimits, Extension, Prefilled, PromptChunk, RowPromise, Slot
from skydraft.engines.llamacpp.branches import BranchBook, BranchPlan, Copy, Cut
from skydraft.engines.llamacpp.file import LlamaFile, complaints, reason
from skydraft.engines.prompt_checks import only_text_ids
from skydraft.engines.slots import Placement, SlotBook
from skydraft.errors import EngineError, PromptRejected

Floats = npt.NDArray[np.float32]

_TO_END = -1  # llama_memory_seq_rm: up to the last position


class LlamaCppEngine:
    """Slots are sequences of one llama.cpp context with a unified KV cache; so are the branches of trees.

    Args:
        context: llama_context_p of the file's model; the engine frees it.
        num_sequences: that the context keeps.
    """

    def __init__(self, file: LlamaFile, context: Any, limits: EngineLimits, num_sequences: int) -> None:
        self._context = context
        # Not at exit, as in LlamaFile; the file is an argument so that it outlives the context.
        weakref.finalize(self, _free, context, file).atexit = False
        self._memory = llama_cpp.llama_get_memory(context)
        self.vocabulary = file.vocabulary
        self.name = self.vocabulary.name
        self.limits = limits
        self.row_promise = RowPromise(False, "llama.cpp computes rows with other kernels when there are more of them")
        self._book = SlotBook(limits)
        self._branches = BranchBook(limits.num_slots, num_sequences)

    def measure(self, prompt: Prompt) -> int:
        num_tokens = len(only_text_ids(prompt, self.vocabulary))
        self._book.require_room(num_tokens)
        return num_tokens

    def reserve(self, prompt: Prompt) -> Slot:
        return self._book.reserve(only_text_ids(prompt, self.vocabulary))

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
        plans = self._branches.plan(placements)
        rows = self._read(plans)
        self._book.commit(placements)
        self._branches.commit(plans)
        ends = np.cumsum([_num_outputs(placement) for placement in placements])
        parts = np.split(rows, ends[:-1])
        return [part[len(part) - placement.num_rows :] for part, placement in zip(parts, placements, strict=True)]

    def crop(self, slot: Slot, keep_length: int) -> None:
        self._do(self._branches.crop(slot, self._book.crop(slot, keep_length)))

    def keep_path(self, slot: Slot, start: int, path: Sequence[int], rest: Sequence[int] = ()) -> None:
        self._book.keep_path(slot, start, path, rest)
        self._do(self._branches.keep(slot, path, rest))

    def close(self, slot: Slot) -> None:
        self._book.release(slot)
        self._do(self._branches.close(slot))

    def _read(self, plans: Sequence[BranchPlan]) -> Floats:
        """One forward pass; returns _num_outputs rows of logits of each plan.

        Raises:
            EngineError: it failed, or gave what is no number; the slots are as they were.
        """
        self._do(copy for plan in plans for copy in plan.copies)
        batch = _TokenBatch.of(plans)
        with complaints() as lines:
            status = llama_cpp.llama_decode(self._context, batch.as_llama_batch())
        if status:
            self._undo(plans)
            raise EngineError(
                f"llama.cpp cannot read {len(batch.token_ids)} tokens (status {status}: {reason(lines)}): use fewer or "
                "shorter slots where memory is short"
            )
        logits = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits(self._context), (batch.num_outputs, self.vocabulary.size)
        )
        if not np.isfinite(logits).all():
            self._undo(plans)
            self._purge()
            raise EngineError(f"{self.name} gives no finite logits after these {len(batch.token_ids)} tokens")
        return logits.copy()  # the next pass writes to the same place

    def _undo(self, plans: Sequence[BranchPlan]) -> None:
        self._do(cut for plan in plans for cut in plan.undo())

    def _purge(self) -> None:
        """Wipe the cells that are free: all slots share a cache, and what is masked must still be a number."""
        state = (ctypes.c_uint8 * llama_cpp.llama_state_get_size(self._context))()
        length = llama_cpp.llama_state_get_data(self._context, state, len(state))
        llama_cpp.llama_state_set_data(self._context, state, length)  # clears the whole cache first

    def _do(self, steps: Iterable[Copy | Cut]) -> None:
        for step in steps:
            if isinstance(step, Copy):
                llama_cpp.llama_memory_seq_cp(self._memory, step.source, step.sequence, step.start, step.end)
            elif not llama_cpp.llama_memory_seq_rm(self._memory, step.sequence, step.start, _TO_END):
                raise EngineError(f"llama.cpp cannot roll {self.name} back to position {step.start}")


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
