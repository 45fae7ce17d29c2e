"""A draft slot that follows a tree: what it reads is what reading each path alone gives."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import pytest

from skydraft.core import Exact, Prompt, SamplingParams, TokenSegment
from skydraft.decoding.guess_tree import GuessTree, Node
from skydraft.edge.draft_lease import DraftLease, run_alone
from skydraft.edge.drafter import LoneDrafter
from skydraft.edge.tree_reader import TreeReader
from skydraft.engines.base import Engine, Extension
from skydraft.policies.confidence import Confidence
from skydraft.sampling.guesses import best_guesses
from tests.linked import PROMPT, counting, table

GREEDY = SamplingParams(max_tokens=200)


def path_of(node: Node) -> list[int]:
    ids: list[int] = []
    above: Node | None = node
    while above is not None and above.token_id is not None:
        ids.append(above.token_id)
        above = above.parent
    return ids[::-1]


def alone(engine: Engine, token_ids: list[int]) -> np.ndarray:
    """Logits after these tokens, on a slot of their own."""
    slot, row = engine.open(PROMPT)[:2]
    if token_ids:
        row = engine.extend([Extension.chain(slot, token_ids)])[0][-1]
    engine.close(slot)
    return np.asarray(row)


def follow(
    engine: Engine, seed: int, num_moves: int, check: Callable[[Node, np.ndarray], None], num_shared: int = 10**6
) -> None:
    """Grow a tree and move its root at random; the rows of all nodes that are read go to `check`.

    Args:
        num_shared: after three moves the target turns out to know ids below this only.
    """
    rng = Random(seed)
    tree = GuessTree(Confidence())
    slot, row = engine.open(PROMPT)[:2]
    reader = TreeReader(engine, DraftLease(slot), row, 0)
    for move in range(num_moves):
        if move == 3:
            tree.forget_ids(num_shared)
        nodes = tree.best_to_read(rng.randint(1, 5), 1e-6, 200)
        if not nodes:  # all that was guessed is unknown
            tree.advance([rng.randrange(5)])
            continue
        tree.read(nodes)
        reading = reader.plan(tree, nodes)
        rows = run_alone(engine, reader.run(reading))[-len(nodes) :]
        guesses = best_guesses(rows, GREEDY, [node.position + 1 for node in nodes], 3)
        for node, row in zip(nodes, rows, strict=True):
            check(node, np.asarray(row))
        for node, guess in zip(nodes, guesses, strict=True):
            tree.grow(node, guess, num_shared if move >= 3 else 10**6)
        if (move >= 3 or num_shared > 8) and rng.random() < 0.4:
            known = [node for node in tree.nodes() if node is not tree.root]
            goal = rng.choice(known)
            ids = path_of(goal)[tree.length :]
            strange = [rng.randrange(8) for _ in range(rng.choice([0, 0, 1, 3]))]
            tree.advance([*ids, *strange])
    engine.close(slot)


@pytest.mark.parametrize("seed", range(12))
def test_rows_are_those_of_each_path_alone(seed: int) -> None:
    engine, other = table("table:vocab=8,seed=5,order=4"), table("table:vocab=8,seed=5,order=4")

    def check(node: Node, row: np.ndarray) -> None:
        assert np.array_equal(row, alone(other, path_of(node)))

    follow(engine, seed, 40, check)


@pytest.mark.parametrize("seed", range(12))
def test_nodes_that_the_tree_let_go_of_keep_their_places_in_the_slot(seed: int) -> None:
    engine, other = table("table:vocab=8,seed=5,order=4"), table("table:vocab=8,seed=5,order=4")

    def check(node: Node, row: np.ndarray) -> None:
        assert np.array_equal(row, alone(other, path_of(node)))

    follow(engine, seed, 12, check, num_shared=5)


def test_rows_are_those_of_each_path_alone_with_a_real_model(text_pair: object) -> None:
    from skydraft.engines.load import load_engine
    from skydraft.engines.settings import EngineSettings

    engine = load_engine(str(text_pair / "draft-q4"), "draft", EngineSettings(num_slots=2, num_threads=1))  # type: ignore[operator]

    def check(node: Node, row: np.ndarray) -> None:
        assert np.abs(row - alone(engine, path_of(node))).max() < 1e-4

    follow(engine, 3, 25, check)


def test_what_was_read_before_the_text_moved_is_not_read_again() -> None:
    engine = counting(table("table:vocab=8,seed=5"))
    tree = GuessTree(Confidence())
    slot, row = engine.open(PROMPT)[:2]
    reader = TreeReader(engine, DraftLease(slot), row, 0)
    for _ in range(4):
        nodes = tree.best_to_read(1, 1e-6, 200)
        tree.read(nodes)
        rows = run_alone(engine, reader.run(reader.plan(tree, nodes)))[-1:]
        tree.grow(nodes[0], best_guesses(rows, GREEDY, [nodes[0].position + 1], 1)[0], 8)
    num_before = engine.num_tokens_extended
    (first,) = tree.root.children
    tree.advance([first])
    nodes = tree.best_to_read(1, 1e-6, 200)
    tree.read(nodes)
    run_alone(engine, reader.run(reader.plan(tree, nodes)))
    assert engine.num_tokens_extended == num_before + 1


def test_drafting_a_chain_and_following_a_tree_take_turns_on_one_slot() -> None:
    engine = table("table:vocab=8,seed=5,order=3")
    drafter = LoneDrafter(engine, GREEDY, Exact())
    drafter.open(Prompt((TokenSegment((1, 2, 3)),)))
    expected = drafter.draft([], 12, 8).token_ids
    text = list(expected[:5])
    drafter.follow(text)
    tree = GuessTree(Confidence())
    tree.advance(text)
    for _ in range(3):
        nodes = tree.best_to_read(2, 1e-6, 200)
        tree.read(nodes)
        for node, guesses in zip(nodes, drafter.guess(drafter.plan(tree, nodes), 2, 8), strict=True):
            tree.grow(node, guesses, 8)
    assert next(iter(tree.root.children)) == expected[5]
    assert drafter.draft(text, 7, 8).token_ids == expected[5:]
