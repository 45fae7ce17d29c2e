"""The interface of all engines: what a model must do to draft or to judge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from skydraft.core import Prompt
from skydraft.core.tree_shape import TreeShape
from skydraft.text.vocabulary import Vocabulary

# Tokens of a prompt that are read together: fewer are slower, each. The first piece, which most prompts have in common
# and few read, may be shorter.
LEAST_FIRST_PIECE, LEAST_PIECE = 16, 32

Array: TypeAlias = Any  # a numpy array or a torch tensor: there is no type for the array API standard
Slot: TypeAlias = int  # number of one sequence in an engine's KV cache


class Prefilled(NamedTuple):
    """A slot that has read its prompt.

    logits: float [vocab_size], after the prompt's last token.
    """

    slot: Slot
    logits: Array


class Extension(NamedTuple):
    """Tokens to append to a slot.

    shape: of the tree that the slot ends in afterwards, whose last nodes are these tokens. Its root is the slot's
        present end; where it has more nodes than there are tokens, the first ones are the tree that the slot was last
        extended by, and the tokens grow from it: for drafting a tree level by level.
    num_rows: of how many of the last tokens the logits are wanted; None: of all. An engine may give all.
    """

    slot: Slot
    token_ids: Sequence[int]
    shape: TreeShape
    num_rows: int | None = None

    @staticmethod
    def chain(slot: Slot, token_ids: Sequence[int], num_rows: int | None = None) -> Extension:
        """Tokens of which each follows the one before it."""
        return Extension(slot, token_ids, TreeShape.chain(len(token_ids)), num_rows)


class PromptChunk(NamedTuple):
    """The next tokens of a reserved slot's prompt."""

    slot: Slot
    num_tokens: int


class EngineLimits(NamedTuple):
    """num_slots: sequences at once. max_length: tokens of one sequence, its prompt included."""

    num_slots: int
    max_length: int


class RowPromise(NamedTuple):
    """Whether an engine's rows are invariant: what the exactness of a text rests on.

    A row's logits are invariant where they are the same, bit by bit, whatever else is read with it, was read before it
    in other slots, or was read and rejected.

    is_invariant: they are, in the engine's present settings. Else they are rounded in other ways in other company.
    reason: the settings that this rests on, or what breaks it; completes "because ...", for operators.
    gap_change: by how much the difference between two logits of a row was seen to change, at most, among its most
        probable tokens (`self_test`): a choice by a smaller difference might have been another one in other company. It
        was measured on one short text when the model was loaded, and is no proven bound. None: it was not measured.
    """

    is_invariant: bool
    reason: str
    gap_change: float | None = None


class SwappedSlot(NamedTuple):
    """What a slot held, kept outside of the engine's cache; to be given to `swap_in` of the same engine.

    num_bytes: of memory that it takes.
    """

    num_bytes: int
    content: Any


class KvPiece(NamedTuple):
    """Keys and values of a run of tokens, copied out of an engine's cache; to be given to `reserve` of the same engine.

    num_bytes: of memory that it takes.
    """

    num_tokens: int
    num_bytes: int
    content: Any


class PrefixReuse(NamedTuple):
    """What a slot has read that another text, which begins with the same tokens, may be given in place of reading it.

    As long as callers keep to it, logits are as if all had been read: to the bit, where rows are invariant.

    unit: a prompt is given in whole pieces of so many tokens each, from its start; 1: wherever one likes.
    closing: token ids behind which a piece ends early, if it is not too short. A chat's messages end with them, and two
        prompts part, as a rule, where a message ends.
    takes_text: generated tokens may be given too.
    """

    unit: int = 1
    closing: frozenset[int] = frozenset()
    takes_text: bool = True

    def ends(self, token_ids: Iterable[int]) -> Iterator[int]:
        """Where the whole pieces of a text end. What follows in the text moves none of them."""
        begin, least = 0, LEAST_FIRST_PIECE
        for end, token_id in enumerate(token_ids, 1):
            if end - begin == self.unit or (end - begin >= least and token_id in self.closing):
                yield end
                begin, least = end, LEAST_PIECE


class Engine(Protocol):
    """A language model with a KV cache of slots. One thread at a time may use it.

    row_promise: declared for the engine's settings, without a measurement; a self-test replaces it by what it finds.
    """

    row_promise: RowPromise

    @property
    def name(self) -> str: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def limits(self) -> EngineLimits: ...

    def open(self, prompt: Prompt) -> Prefilled:
        """Give the prompt a slot and read it.

        Raises:
            CacheOverflow: no slot is free, or the prompt is longer than a slot.
            PromptRejected: the model cannot take a segment of it.
        """

    def extend(self, extensions: Sequence[Extension]) -> list[Array]:
        """Append to several slots in one forward pass.

        Returns:
            For each extension float [num_tokens, vocab_size]; row i after token i (and its ancestors); where it says
            num_rows, the last rows may be all. The arrays are the caller's to read, not to write.
        Raises:
            CacheOverflow: a slot has no room; no slot was changed.
            EngineError: a token id is outside of the vocabulary; no slot was changed.
            ValueError: the engine is used wrongly: an empty extension, a slot twice or not open, parents after their
                children, a tree that does not grow from the slot's, a new one after a tree of which no path was kept;
                no slot was changed.
        """

    def crop(self, slot: Slot, keep_length: int) -> None:
        """Forget the slot's generated tokens from position keep_length on.

        Of a tree that was just added, as many leading nodes may be kept as follow one another.
        """

    def keep_path(self, slot: Slot, start: int, path: Sequence[int], rest: Sequence[int] = ()) -> None:
        """Of the last extension, which began at position start, keep the tokens of this root-to-node path only.

        path: indexes into the extension (of a tree that grew: into the whole tree), ascending, each the parent of
            the next.
        rest: more nodes to keep, ascending, each below the path's end with all that is between: they are the slot's
            tree from now on, numbered in this order.
        """

    def close(self, slot: Slot) -> None:
        """Give the slot back."""


@runtime_checkable
class ChunkedEngine(Engine, Protocol):
    """An engine that reads prompts piece by piece, in the same forward passes as other slots' tokens.

    What its slots hold can be kept elsewhere meanwhile, so that others may have them, and what they have read need not
    be read again by others. (Those that are none have a cache of prompts of their own, or cannot tell.)
    """

    prefix_reuse: PrefixReuse

    def measure(self, prompt: Prompt) -> int:
        """How many tokens the prompt takes in a slot; nothing is computed.

        Raises:
            CacheOverflow: more than a slot has room for.
            PromptRejected: the model cannot take a segment of it.
        """

    def prompt_ids(self, prompt: Prompt) -> Sequence[int]:
        """The prompt as tokens of a slot: one id each, for tensors ids that say nothing of what is in them.

        Raises:
            CacheOverflow, PromptRejected: as `measure`.
        """

    def reserve(self, prompt: Prompt, beginning: Sequence[KvPiece] = ()) -> Slot:
        """Give the prompt a slot. `extend` reads it by `PromptChunk`s, and takes nothing else for the slot before.

        Tensors are processed here, whole: an audio tower needs all of a clip before it gives any output.

        Args:
            beginning: pieces that `copy_out` made of a text with the same first tokens and tensors, which follow each
                other from its start as `prefix_reuse` allows: these tokens are not read. The last one always is.
        Raises:
            CacheOverflow, PromptRejected: as `open`.
            ValueError: the beginning is as long as the prompt, or longer.
        """

    def copy_out(self, slot: Slot, start: int, end: int) -> KvPiece:
        """Copy what a slot, which stays as it is, holds of a run of tokens.

        Args:
            start, end: those from start to end - 1, the prompt's counted first.
        Raises:
            ValueError: it has not read its prompt to the end, or not so many tokens that follow one another.
        """

    def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Array]:
        """As Engine.extend.

        Returns:
            For a chunk float [1, vocab_size] after the prompt's last token, or [0, vocab_size] where it ends before.
        Raises:
            ValueError: also where a chunk is longer than what is left of the prompt.
        """

    def swap_out(self, slot: Slot) -> SwappedSlot:
        """Give the slot back, and keep what it holds.

        Raises:
            ValueError: it has not read its prompt to the end, or ends in a tree of which no path was kept; it stays
                as it was.
        """

    def swap_in(self, swapped: SwappedSlot) -> Slot:
        """Give a slot what another held: its rows go on with the same bits.

        Raises:
            CacheOverflow: no slot is free.
        """


@runtime_checkable
class NarrowEngine(Engine, Protocol):
    """An engine for which many logits of a row are slow or impossible to get: callers say how many matter."""

    def open_narrow(self, prompt: Prompt, num_logits: int | None, num_ids: int | None = None) -> Prefilled:
        """As `open`, where of each of the slot's rows only the num_logits largest matter; the others may be -inf.

        num_logits: 1 or more; None: all matter.
        num_ids: ids from here on do not count: the largest of the others matter. None: all count.

        Raises:
            CacheOverflow, PromptRejected: as `open`.
            EngineError: it cannot give so many. `extend` raises it too, where too many of the largest do not count.
        """


@runtime_checkable
class ReportingEngine(Engine, Protocol):
    """An engine that has more to tell an operator than its name."""

    def report(self) -> Mapping[str, object]:
        """What /healthz adds to its answer, as JSON has it."""
