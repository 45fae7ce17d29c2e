"""The slots of an engine: which are open, how long they are, and where the nodes of a tree lie.

Every token that a slot has read has an index: its prompt's tokens come first, then the generated ones. The nodes of a
tree get indexes in the order of the extension, so what is new is always one run; only their positions in the text (for
rotary embeddings) and what they may look at follow the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import EngineLimits, Extension, PromptChunk, Slot
from skydraft.engines.prompt_checks import check_token_ids
from skydraft.errors import CacheOverflow

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class SlotTree(NamedTuple):
    """The tokens that a slot was last extended by, and of a tree those that it grew from.

    start: index of the first node.
    """

    start: int
    shape: TreeShape

    @property
    def positions(self) -> Ints:
        """int [num_nodes]: of each node in its text, prompt included."""
        if self.shape.is_chain:
            return np.arange(self.start, self.start + len(self.shape))
        return self.start - 1 + np.array(self.shape.depths[1:], dtype=np.int64)


def lineage(shape: TreeShape) -> Bools:
    """bool [num_nodes, num_nodes]: row i is True at node i and its ancestors."""
    marks = np.eye(len(shape), dtype=np.bool_)
    for node, parent in enumerate(shape.parents):
        if parent:
            marks[node] |= marks[parent - 1]
    return marks


class Placement(NamedTuple):
    """Where the tokens of an extension go.

    start: index of the first new token.
    tree: its last nodes are the new tokens.
    num_rows: of how many of the last tokens the logits are wanted.
    """

    slot: Slot
    token_ids: Sequence[int]
    start: int
    tree: SlotTree
    num_rows: int

    @property
    def end(self) -> int:
        return self.start + len(self.token_ids)

    @property
    def positions(self) -> Ints:
        """int [num_tokens]: of each new token in its text, prompt included."""
        return self.tree.positions[-len(self.token_ids) :]


class SettledSlot(NamedTuple):
    """A slot that was swapped out.

    length: tokens that it holds, its prompt included.
    high_water: how many of its indexes were ever used.
    """

    prompt_length: int
    length: int
    high_water: int


@dataclass
class _SlotState:
    prompt_length: int
    length: int  # tokens with an index, those of an undecided tree included
    high_water: int  # tokens that ever had one
    tree: SlotTree | None = None
    prompt_ids: Sequence[int] = ()  # of a reserved slot

    @property
    def is_settled(self) -> bool:
        return self.length >= self.prompt_length and (self.tree is None or self.tree.shape.is_chain)


class SlotBook:
    """Keeps the lengths and trees of all slots; knows nothing of what is stored in them.

    States of a slot:

        free        allocate -> settled; reserve -> unread
        unread      a PromptChunk reads more of the prompt, the last one -> settled; nothing else is allowed
        settled     its tokens are one text: a chain extends it, crop shortens it; a tree with a fork -> undecided
        undecided   it ends in a tree with a fork, which may grow level by level;
                    crop to what stands before the fork, or keep_path -> settled,
                    or still undecided where keep_path keeps a fork below the path
        any         release -> free
        settled     swap_out -> free, and what it returns: swap_in -> settled

    What is not allowed is a ValueError. An engine asks `place` where the tokens go, computes, and calls `commit` when
    they have been read: a pass that fails in between leaves every slot in its state.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        self._states: dict[Slot, _SlotState] = {}

    def require_room(self, prompt_length: int) -> None:
        """Refuse prompts that no slot has room for.

        Raises:
            CacheOverflow: saying both lengths.
        """
        if prompt_length > self.limits.max_length:
            raise CacheOverflow(
                f"the prompt has {prompt_length} tokens and a slot has room for {self.limits.max_length}: "
                "shorten it or raise max_length"
            )

    def allocate(self, prompt_length: int) -> Slot:
        """Open the lowest free slot.

        Raises:
            CacheOverflow: no slot is free, or the prompt is longer than a slot.
        """
        self.require_room(prompt_length)
        return self._open(_SlotState(prompt_length, prompt_length, prompt_length))

    def reserve(self, prompt_ids: Sequence[int], num_held: int = 0) -> Slot:
        """Open a slot for a prompt that is to be read.

        Args:
            num_held: of its tokens that need not be, for the slot will be given what another has read.
        Raises:
            CacheOverflow: as `allocate`.
            ValueError: that is all of it: the logits after its last token are nowhere.
        """
        if num_held >= len(prompt_ids):
            raise ValueError(
                f"a prompt of {len(prompt_ids)} tokens cannot begin with {num_held} that are read: at least the last "
                "one is to be read"
            )
        slot = self.allocate(len(prompt_ids))
        self._states[slot] = _SlotState(len(prompt_ids), num_held, num_held, prompt_ids=prompt_ids)
        return slot

    def require_held(self, slot: Slot, start: int, end: int) -> None:
        """Refuse a run of tokens that a slot does not hold, or that do not follow one another in it.

        Raises:
            ValueError: saying what it holds.
        """
        state = self._state(slot)
        most = state.length if state.is_settled or state.tree is None else state.tree.start
        if not 0 <= start < end <= most or state.length < state.prompt_length:
            raise ValueError(
                f"tokens {start} to {end} of slot {slot} are not to be had: of its prompt of {state.prompt_length} "
                f"tokens and the text behind it, it holds {most}"
            )

    def num_unread(self, slot: Slot) -> int:
        """How many tokens of its prompt a slot has yet to read."""
        state = self._state(slot)
        return max(0, state.prompt_length - state.length)

    def release(self, slot: Slot) -> int:
        """Close a slot; returns how many of its indexes were ever used."""
        high_water = self._state(slot).high_water
        del self._states[slot]
        return high_water

    def swap_out(self, slot: Slot) -> SettledSlot:
        """Close a slot and keep what the book knows of it.

        Raises:
            ValueError: it is not settled.
        """
        state = self._state(slot)
        if not state.is_settled:
            raise ValueError(f"slot {slot} is not settled and cannot be swapped out: keep a path of its tree first")
        high_water = self.release(slot)
        return SettledSlot(state.prompt_length, state.length, high_water)

    def swap_in(self, swapped: SettledSlot) -> Slot:
        """Open a slot for what another held; its tokens get the indexes that they had.

        Raises:
            CacheOverflow: no slot is free.
        """
        return self._open(_SlotState(swapped.prompt_length, swapped.length, swapped.length))

    def place(self, extensions: Sequence[Extension | PromptChunk], vocabulary_size: int) -> list[Placement]:
        """Say where the tokens of each extension go; the slots stay as they are.

        Raises:
            CacheOverflow: a slot has no room.
            EngineError: a token id is outside of the vocabulary.
            ValueError: the engine is used wrongly.
        """
        if len({extension.slot for extension in extensions}) < len(extensions):
            raise ValueError(f"one slot is extended twice in one pass: {[e.slot for e in extensions]}")
        placements = [
            self._place_chunk(item) if isinstance(item, PromptChunk) else self._place(item, vocabulary_size)
            for item in extensions
        ]
        for placement in placements:  # a pass may fail when it has written already
            state = self._states[placement.slot]
            state.high_water = max(state.high_water, placement.end)
        return placements

    def commit(self, placements: Sequence[Placement]) -> None:
        """The tokens of these placements have been read."""
        for placement in placements:
            state = self._states[placement.slot]
            state.length, state.tree = placement.end, placement.tree

    def crop(self, slot: Slot, keep_length: int) -> int:
        """Forget generated tokens from position keep_length on; returns the slot's length in indexes."""
        state = self._state(slot)
        length = state.prompt_length + keep_length
        limit = state.length
        if state.tree is not None and not state.tree.shape.is_chain:
            limit = state.tree.start + state.tree.shape.num_in_chain
        if not state.prompt_length <= length <= limit:
            raise ValueError(
                f"slot {slot} has {limit - state.prompt_length} generated tokens in a row and cannot be cropped to "
                f"{keep_length}"
            )
        state.length, state.tree = length, None
        return length

    def tree_start(self, slot: Slot) -> int:
        """The index of the first node of the slot's tree; without one its length."""
        state = self._state(slot)
        return state.length if state.tree is None else state.tree.start

    def keep_path(self, slot: Slot, start: int, path: Sequence[int], rest: Sequence[int] = ()) -> Ints:
        """Keep a path of the last extension and nodes below it; they get the indexes from the extension's first on.

        Returns:
            int [len(path) + len(rest)]: the indexes that they had.
        """
        state = self._state(slot)
        tree = state.tree
        if tree is None or tree.start != state.prompt_length + start:
            raise ValueError(f"the last extension of slot {slot} did not begin at position {start}")
        if not tree.shape.has_path(path):
            raise ValueError(f"{list(path)} is no path from the root of a tree with parents {list(tree.shape.parents)}")
        below = tree.shape.subtree(path[-1] + 1 if path else 0, rest)
        kept = [*path, *rest]
        state.length, state.tree = tree.start + len(kept), SlotTree(tree.start + len(path), below) if rest else None
        return tree.start + np.array(kept, dtype=np.int64)

    def _place(self, extension: Extension, vocabulary_size: int) -> Placement:
        state = self._state(extension.slot)
        tree = _grown_tree(state, extension)
        num_new = len(extension.token_ids)
        start = tree.start + len(tree.shape) - num_new
        if start + num_new > self.limits.max_length:
            raise CacheOverflow(
                f"slot {extension.slot} holds {start} tokens, and {num_new} more do not fit into "
                f"{self.limits.max_length}: shorten the text or raise max_length"
            )
        check_token_ids(extension.token_ids, vocabulary_size)
        num_rows = num_new if extension.num_rows is None else extension.num_rows
        return Placement(extension.slot, extension.token_ids, start, tree, num_rows)

    def _place_chunk(self, chunk: PromptChunk) -> Placement:
        state, num_unread = self._state(chunk.slot), self.num_unread(chunk.slot)
        if not 1 <= chunk.num_tokens <= num_unread:
            raise ValueError(
                f"slot {chunk.slot} is to read {chunk.num_tokens} tokens of its prompt and has {num_unread} left"
            )
        token_ids = state.prompt_ids[state.length : state.length + chunk.num_tokens]
        tree = SlotTree(state.length, TreeShape.chain(chunk.num_tokens))
        return Placement(chunk.slot, token_ids, state.length, tree, int(chunk.num_tokens == num_unread))

    def _open(self, state: _SlotState) -> Slot:
        slot = next((slot for slot in range(self.limits.num_slots) if slot not in self._states), None)
        if slot is None:
            raise CacheOverflow(
                f"all {self.limits.num_slots} slots of the engine are open: close one or raise num_slots"
            )
        self._states[slot] = state
        return slot

    def _state(self, slot: Slot) -> _SlotState:
        state = self._states.get(slot)
        if state is None:
            raise ValueError(f"slot {slot} is not open; open are {sorted(self._states)}")
        return state


def _grown_tree(state: _SlotState, extension: Extension) -> SlotTree:
    """The tree that the slot ends in with the extension's tokens as its last nodes."""
    slot, shape, num_new = extension.slot, extension.shape, len(extension.token_ids)
    num_before = len(shape) - num_new
    if state.length < state.prompt_length:
        raise ValueError(f"slot {slot} is extended and has not read its prompt to the end")
    if not num_new or num_before < 0:
        raise ValueError(f"slot {slot} is extended by {num_new} tokens in a tree of {len(shape)} nodes")
    try:
        shape.check()
    except ValueError as error:
        raise ValueError(f"slot {slot} is extended by no tree: {error}") from None
    if num_before:
        if state.tree is None or state.tree.shape != shape.first(num_before):
            raise ValueError(f"slot {slot} has no tree that could grow into one with parents {list(shape.parents)}")
        return SlotTree(state.tree.start, shape)
    if state.tree is not None and not state.tree.shape.is_chain:
        raise ValueError(f"slot {slot} ends in an undecided tree: keep a path of it or crop it first")
    return SlotTree(state.length, shape)
