from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import EngineLimits, Extension
from skydraft.engines.llamacpp.branches import BranchBook, BranchPlan, Copy, Cut
from skydraft.engines.slots import SlotBook
from skydraft.errors import CacheOverflow

TREE = (0, 0, 1, 1, 4)  # 0 -> (2, 3 -> 4), 1


class Cache:
    """The cells of a unified cache: which token lies in each, at which position, in which sequences."""

    def __init__(self, num_sequences: int = 12) -> None:
        self.book = SlotBook(EngineLimits(num_slots=3, max_length=100))
        self.branches = BranchBook(3, num_sequences)
        self.cells: list[tuple[int, int, set[int]]] = []

    def open(self, *token_ids: int) -> int:
        slot = self.book.allocate(len(token_ids))
        self.cells += [(token_id, position, {slot}) for position, token_id in enumerate(token_ids)]
        return slot

    def plan(self, *extensions: Extension) -> list[BranchPlan]:
        return self.branches.plan(self.book.place(extensions, 1000))

    def extend(self, *extensions: Extension) -> list[BranchPlan]:
        plans = self.plan(*extensions)
        self.do(copy for plan in plans for copy in plan.copies)
        for plan in plans:
            new = zip(plan.placement.token_ids, plan.placement.positions.tolist(), plan.memberships, strict=True)
            self.cells += [(token_id, position, set(held)) for token_id, position, held in new]
        self.book.commit([plan.placement for plan in plans])
        self.branches.commit(plans)
        return plans

    def keep(self, slot: int, start: int, path: Sequence[int], rest: Sequence[int] = ()) -> None:
        self.book.keep_path(slot, start, path, rest)
        self.do(self.branches.keep(slot, path, rest))

    def crop(self, slot: int, keep_length: int) -> None:
        self.do(self.branches.crop(slot, self.book.crop(slot, keep_length)))

    def close(self, slot: int) -> None:
        self.book.release(slot)
        self.do(self.branches.close(slot))

    def do(self, steps: Iterable[Copy | Cut]) -> None:
        for step in steps:
            for _, position, held in self.cells:
                if isinstance(step, Cut):
                    if position >= step.start:
                        held.discard(step.sequence)
                elif step.source in held and step.start <= position < step.end:
                    held.add(step.sequence)
        self.cells = [cell for cell in self.cells if cell[2]]

    def seen(self, plan: BranchPlan) -> list[list[int]]:
        """What each new token sees, itself last."""
        return [
            [
                token_id
                for token_id, at, held in sorted(self.cells, key=lambda cell: cell[1])
                if held & own and at <= end
            ]
            for own, end in zip(map(set, plan.memberships), plan.placement.positions.tolist(), strict=True)
        ]


@dataclass
class Text:
    """What a slot should hold: a text, of which the first two tokens are the prompt, and a tree behind it."""

    token_ids: list[int]
    nodes: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)

    def upto(self, node: int) -> list[int]:
        return self.token_ids + [self.nodes[index] for index in self.path(node)]

    def path(self, node: int) -> list[int]:
        before = self.path(self.parents[node] - 1) if self.parents[node] else []
        return [*before, node]

    def grow(self, slot: int, random: np.random.Generator) -> Extension:
        first = len(self.parents)
        ids = [int(i) for i in random.integers(300, 1000, 4)]
        parents = [int(random.integers(0, first + i + 1)) for i in range(4)]
        self.nodes += ids
        self.parents += parents
        return Extension(slot, ids, TreeShape(tuple(self.parents)))

    def crop(self, cache: Cache, slot: int, random: np.random.Generator) -> None:
        chain = next((i for i, parent in enumerate(self.parents) if parent != i), len(self.parents))
        kept = int(random.integers(0, len(self.token_ids) - 2 + chain + 1))
        cache.crop(slot, kept)
        self.token_ids, self.nodes, self.parents = (self.token_ids + self.nodes)[: 2 + kept], [], []

    def keep(self, cache: Cache, slot: int, random: np.random.Generator) -> None:
        """A path, and some of what is below it."""
        path = self.path(int(random.integers(0, len(self.nodes))))[: random.integers(0, 5)]
        rows, rest = {path[-1] + 1 if path else 0: 0}, []
        for node, parent in enumerate(self.parents):
            if parent in rows and random.random() < 0.7:
                rest.append(node)
                rows[node + 1] = len(rest)
        cache.keep(slot, len(self.token_ids) - 2, path, rest)
        self.token_ids += [self.nodes[node] for node in path]
        self.nodes, self.parents = [self.nodes[node] for node in rest], [rows[self.parents[node]] for node in rest]


def test_a_chain_stays_in_the_slots_own_sequence() -> None:
    cache = Cache()
    (plan,) = cache.extend(Extension.chain(cache.open(1, 2), [3, 4, 5]))
    assert plan.copies == ()
    assert plan.memberships == ((0,), (0,), (0,))


def test_every_child_but_the_first_begins_a_branch_of_what_has_been_read() -> None:
    cache = Cache()
    (plan,) = cache.extend(Extension(cache.open(1, 2), [3, 4, 5, 6, 7], TreeShape(TREE)))
    assert plan.owners == (0, 3, 0, 4, 4)
    assert plan.copies == (Copy(3, 0, 0, 2), Copy(4, 0, 0, 2))
    assert plan.memberships == ((0, 4), (3,), (0,), (4,), (4,))


def test_a_branch_of_a_tree_that_grows_holds_the_ancestors_that_have_been_read() -> None:
    cache = Cache()
    slot = cache.open(1, 2)
    cache.extend(Extension(slot, [3, 4, 5], TreeShape((0, 0, 2))))
    (plan,) = cache.extend(Extension(slot, [6, 7, 8], TreeShape((0, 0, 2, 2, 3, 4))))
    assert plan.copies == (Copy(4, 3, 0, 3),)
    assert plan.memberships == ((4,), (3,), (4,))


@pytest.mark.parametrize("seed", range(20))
def test_tokens_see_their_ancestors_and_nothing_else(seed: int) -> None:
    random = np.random.default_rng(seed)
    cache = Cache(num_sequences=256)
    texts = {cache.open(slot, 100 + slot): Text([slot, 100 + slot]) for slot in range(3)}
    for _ in range(12):
        for plan in cache.extend(*(text.grow(slot, random) for slot, text in texts.items())):
            text = texts[plan.placement.slot]
            assert cache.seen(plan) == [text.upto(node) for node in range(len(text.nodes) - 4, len(text.nodes))]
        for slot, text in texts.items():
            acts = [lambda *_: None, text.crop, text.keep, text.keep]
            acts[random.integers(4)](cache, slot, random)


def test_undoing_takes_away_what_a_pass_may_have_written() -> None:
    cache = Cache()
    slot = cache.open(1, 2)
    cache.extend(Extension(slot, [3, 4], TreeShape((0, 0))))
    (plan,) = cache.plan(Extension(slot, [5, 6], TreeShape((0, 0, 2, 2))))
    assert plan.undo() == [Cut(3, 3), Cut(4, 3), Cut(4, 0)]


def test_more_branches_than_sequences_are_refused_and_lend_none() -> None:
    cache = Cache(num_sequences=5)
    slot = cache.open(1)
    with pytest.raises(CacheOverflow, match="3 more branches of trees were drafted and llama.cpp has 2 sequences left"):
        cache.plan(Extension(slot, [2, 3, 4, 5], TreeShape((0, 0, 0, 0))))
    (plan,) = cache.extend(Extension(slot, [2, 3, 4], TreeShape((0, 0, 0))))
    assert [copy.sequence for copy in plan.copies] == [3, 4]


def test_two_slots_never_share_a_branch() -> None:
    cache = Cache()
    plans = cache.plan(*(Extension(cache.open(1), [3, 4], TreeShape((0, 0))) for _ in range(2)))
    assert [plan.copies[0].sequence for plan in plans] == [3, 4]


@pytest.mark.parametrize("end", ["crop", "keep", "close"])
def test_a_decided_tree_gives_its_branches_back(end: str) -> None:
    cache = Cache(num_sequences=5)
    for _ in range(2):
        slot = cache.open(1)
        cache.extend(Extension(slot, [2, 3], TreeShape((0, 0))))
        cache.extend(Extension(slot, [4], TreeShape((0, 0, 0))))
        if end == "crop":
            cache.crop(slot, 0)
        elif end == "keep":
            cache.keep(slot, 0, [0])
        if end != "close":
            cache.extend(Extension(slot, [2, 3, 4], TreeShape((0, 0, 0))))
        cache.close(slot)
        assert cache.cells == []


def test_branches_that_are_kept_stay_lent() -> None:
    cache = Cache(num_sequences=5)
    slot = cache.open(1)
    cache.extend(Extension(slot, [2, 3, 4], TreeShape((0, 0, 2))))
    cache.keep(slot, 0, [], rest=[1, 2])
    (plan,) = cache.extend(Extension(slot, [5], TreeShape((0, 1, 0))))
    assert plan.copies == (Copy(4, 0, 0, 1),)
    with pytest.raises(CacheOverflow, match="has 0 sequences left"):
        cache.plan(Extension(slot, [6], TreeShape((0, 1, 0, 0))))
