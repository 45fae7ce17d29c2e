"""Trees without a tree mask: each branch of a tree is a sequence of its own in one KV cache.

llama.cpp has no mask in its batches; a token sees what shares a sequence with it. Each slot has the sequence of its own
number, which always contains the text before the slot's tree. A node's first child continues the node's sequence; every
other child begins a branch: a free sequence, into which what stands before it is copied first (copying costs no memory:
a token may be in many sequences). A node that has not been read yet joins the sequences of all that come after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from skydraft.engines.base import Slot
from skydraft.engines.slots import Placement
from skydraft.errors import CacheOverflow

SequenceId: TypeAlias = int


class Copy(NamedTuple):
    """The tokens of `source` at positions start to end - 1 are to belong to `sequence` too."""

    sequence: SequenceId
    source: SequenceId
    start: int
    end: int


class Cut(NamedTuple):
    """`sequence` is to forget its tokens from position start on."""

    sequence: SequenceId
    start: int


class BranchPlan(NamedTuple):
    """How the tokens of a placement are spread over sequences.

    owners: of each node of the slot's tree, the sequence that ends there or goes on with its first child.
    copies: of each branch that begins.
    memberships: of each new token, the sequences that it belongs to, ascending.
    """

    placement: Placement
    owners: tuple[SequenceId, ...]
    copies: tuple[Copy, ...]
    memberships: tuple[tuple[SequenceId, ...], ...]

    def undo(self) -> list[Cut]:
        """What takes the new tokens away again."""
        count = len(self.placement.token_ids)
        new = zip(self.owners[-count:], self.placement.positions.tolist(), strict=True)
        return [Cut(owner, position) for owner, position in new] + [Cut(copy.sequence, 0) for copy in self.copies]


class _Grown(NamedTuple):
    """The tokens that a slot was last extended by, and of a tree those that it grew from.

    positions, owners: of each. branches: the sequences that they were lent.
    """

    start: int
    positions: tuple[int, ...]
    owners: tuple[SequenceId, ...]
    branches: tuple[SequenceId, ...]


class BranchBook:
    """Lends sequences to the branches of all slots; knows nothing of what is stored in them.

    A sequence above the slots' own is free, or lent to a branch of one slot's tree. `plan` chooses free ones, `commit`
    lends them once the tokens have been read, and `keep`, `crop` and `close` free those whose branches were dropped.

    Args:
        num_slots: sequences 0 to num_slots - 1 are the slots' own.
        num_sequences: in all.
        holds_rejected: rejected nodes whose cells lie before those of kept ones stay in the cache, in one more
            sequence, number num_sequences. Later tokens would get their cells, and the slot's cells would not ascend
            any more: its sums would run in another order than those of the same text read at once. For one slot.

    num_held: cells that are held.
    """

    def __init__(self, num_slots: int, num_sequences: int, holds_rejected: bool = False) -> None:
        self.num_held = 0
        self._free = list(range(num_slots, num_sequences))
        self._grown: dict[Slot, _Grown] = {}
        self._graveyard = num_sequences if holds_rejected else None

    def plan(self, placements: Sequence[Placement]) -> list[BranchPlan]:
        """Spread new tokens over sequences; nothing is lent yet.

        Raises:
            CacheOverflow: the trees have more branches than there are free sequences.
        """
        num_branches = sum(_num_branches(placement) for placement in placements)
        if num_branches > len(self._free):
            raise CacheOverflow(
                f"{num_branches} more branches of trees were drafted and llama.cpp has {len(self._free)} sequences "
                "left for them: draft narrower trees"
            )
        free = iter(self._free)
        return [self._plan(placement, free) for placement in placements]

    def commit(self, plans: Sequence[BranchPlan]) -> None:
        """The tokens of these plans have been read."""
        for plan in plans:
            slot, tree = plan.placement.slot, plan.placement.tree
            lent = tuple(copy.sequence for copy in plan.copies)
            before = self._grown[slot].branches if slot in self._grown else ()
            positions = tuple(tree.positions.tolist())
            self._grown[slot] = _Grown(tree.start, positions, plan.owners, before + lent)
            self._free = [sequence for sequence in self._free if sequence not in lent]

    def crop(self, slot: Slot, length: int) -> list[Copy | Cut]:
        """Keep the first tokens of a slot, none of them behind a fork; returns the cache operations, in order."""
        grown = self._grown.get(slot)
        if grown is not None and length > grown.start:
            return self.keep(slot, range(length - grown.start))
        return [Cut(slot, length), *self._release(slot)]

    def keep(self, slot: Slot, path: Sequence[int], rest: Sequence[int] = ()) -> list[Copy | Cut]:
        """Keep a path of the slot's tree, and nodes below it as the slot's tree from now on; nodes as in keep_path.

        Returns:
            The cache operations for it, in order.
        """
        grown = self._grown.pop(slot)
        start = grown.start + len(path)
        owners = tuple(grown.owners[node] for node in rest)
        # The positions of a sequence's nodes ascend with their numbers: its last node is where it ends.
        ends = {owner: grown.positions[node] + 1 for owner, node in zip(owners, rest, strict=True)}
        steps: list[Copy | Cut] = list(self._hold(grown, {*path, *rest}))
        if slot not in ends:
            path_owner = grown.owners[path[-1]] if path else slot
            if path_owner == slot:
                steps += [Cut(slot, start)]
            else:
                steps += [Cut(slot, grown.start), Copy(slot, path_owner, grown.start, start)]
        steps += [Cut(sequence, ends.get(sequence, 0)) for sequence in grown.branches]
        if slot in ends:
            steps.append(Cut(slot, ends[slot]))
        self._give_back(sequence for sequence in grown.branches if sequence not in ends)
        if rest:
            positions = tuple(grown.positions[node] for node in rest)
            branches = tuple(sequence for sequence in grown.branches if sequence in ends)
            self._grown[slot] = _Grown(start, positions, owners, branches)
        return steps

    def close(self, slot: Slot) -> list[Copy | Cut]:
        """Forget a slot; returns the cache operations for it."""
        steps: list[Copy | Cut] = [Cut(slot, 0), *self._release(slot)]
        if self._graveyard is not None:
            self.num_held = 0
            steps.append(Cut(self._graveyard, 0))
        return steps

    def _hold(self, grown: _Grown, kept: set[int]) -> list[Copy]:
        """Have the rejected nodes before the last kept one held; nodes lie in the cache in their order."""
        if self._graveyard is None:
            return []
        rejected = [node for node in range(max(kept, default=0)) if node not in kept]
        self.num_held += len(rejected)
        return [
            Copy(self._graveyard, grown.owners[node], grown.positions[node], grown.positions[node] + 1)
            for node in rejected
        ]

    def _release(self, slot: Slot) -> list[Cut]:
        grown = self._grown.pop(slot, None)
        branches = () if grown is None else grown.branches
        self._give_back(iter(branches))
        return [Cut(sequence, 0) for sequence in branches]

    def _give_back(self, sequences: Iterator[SequenceId]) -> None:
        self._free = sorted([*self._free, *sequences])

    def _plan(self, placement: Placement, free: Iterator[SequenceId]) -> BranchPlan:
        slot, tree = placement.slot, placement.tree
        parents = tree.shape.parents
        first_new = len(parents) - len(placement.token_ids)
        owners = list(self._grown[slot].owners) if first_new else []
        has_child = set(parents[:first_new])
        copies = []
        for parent in parents[first_new:]:
            if parent in has_child:
                owner = next(free)
                copies.append(_copy_before(parent, owner, placement, owners))
            else:
                owner = owners[parent - 1] if parent else slot
            has_child.add(parent)
            owners.append(owner)
        return BranchPlan(placement, tuple(owners), tuple(copies), _memberships(placement, owners))


def _num_branches(placement: Placement) -> int:
    """How many new nodes are not the first child of their parent."""
    num_new, parents = len(placement.token_ids), placement.tree.shape.parents
    return num_new - len(set(parents) - set(parents[:-num_new]))


def _copy_before(parent: int, sequence: SequenceId, placement: Placement, owners: Sequence[SequenceId]) -> Copy:
    """For a branch below `parent`: the text up to the last ancestor that has been read."""
    start, shape = placement.tree
    first_new = len(shape) - len(placement.token_ids)
    while parent > first_new:
        parent = shape.parents[parent - 1]
    source = owners[parent - 1] if parent else placement.slot
    return Copy(sequence, source, 0, start + shape.depths[parent])


def _memberships(placement: Placement, owners: Sequence[SequenceId]) -> tuple[tuple[SequenceId, ...], ...]:
    """Of each new token its owner and the owners of all new tokens below it."""
    parents = placement.tree.shape.parents
    members = [{owner} for owner in owners]
    for node in reversed(range(len(parents))):
        if parents[node]:
            members[parents[node] - 1] |= members[node]
    return tuple(tuple(sorted(sequences)) for sequences in members[-len(placement.token_ids) :])
