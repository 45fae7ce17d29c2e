"""The tree of guesses: what it keeps, offers and learns when the text grows."""

from __future__ import annotations

import math

import pytest

from skydraft.core import TreeShape
from skydraft.decoding.guess_tree import GuessTree, Node
from skydraft.policies.confidence import Confidence
from skydraft.sampling.guesses import Guesses

NUM_IDS = 100


def grow(tree: GuessTree, node: Node, *token_ids: int, lead: float = 2.0) -> list[Node]:
    """Guesses of falling scores behind a node; returns their nodes."""
    tree.read([node])
    scores = tuple(-lead * rank for rank in range(len(token_ids)))
    tree.grow(node, Guesses(token_ids, scores), NUM_IDS)
    return list(node.children.values())


@pytest.fixture
def tree() -> GuessTree:
    """A guess 1 or 2; behind 1: 3 or 4, behind 2: 5; behind 3: 6."""
    tree = GuessTree(Confidence())
    one, two = grow(tree, tree.root, 1, 2)
    three, _ = grow(tree, one, 3, 4)
    grow(tree, two, 5)
    grow(tree, three, 6)
    return tree


def test_an_offer_has_parents_before_children_and_starts_at_the_end_of_the_text(tree: GuessTree) -> None:
    draft = tree.offer(tree.unoffered(1e-9, 100))
    assert draft.start == 0
    assert draft.check() == draft
    assert not draft.shape.is_chain
    by_path: dict[int, tuple[int, ...]] = {}
    for token_id, parent in zip(draft.token_ids, draft.shape.parents, strict=True):
        by_path[len(by_path) + 1] = (*by_path.get(parent, ()), token_id)
    assert set(by_path.values()) == {(1,), (2,), (1, 3), (1, 4), (2, 5), (1, 3, 6)}


def test_an_offer_brings_what_stands_between_the_text_and_its_nodes(tree: GuessTree) -> None:
    six = tree.root.children[1].children[3].children[6]
    draft = tree.offer([six])
    assert (draft.token_ids, draft.shape) == ((1, 3, 6), TreeShape.chain(3))


def test_what_was_offered_is_not_offered_again_until_it_is_lost(tree: GuessTree) -> None:
    tree.offer(tree.unoffered(1e-9, 100))
    assert tree.unoffered(1e-9, 100) == []
    assert tree.num_offered == 6
    tree.forget_offers()
    assert len(tree.unoffered(1e-9, 100)) == 6


def test_the_most_probable_nodes_come_first_and_improbable_ones_not_at_all(tree: GuessTree) -> None:
    nodes = tree.unoffered(1e-9, 3)
    assert nodes == sorted(nodes, key=lambda node: -node.log_prob)
    assert all(tree.prob(node) >= 0.3 for node in tree.unoffered(0.3, 100))
    assert len(tree.unoffered(0.3, 100)) < 6


def test_a_verdict_keeps_what_was_guessed_below_the_new_end(tree: GuessTree) -> None:
    three = tree.root.children[1].children[3]
    tree.advance([1, 3])
    assert tree.root is three
    assert list(tree.root.children) == [6]
    assert tree.prob(tree.root) == 1.0


def test_a_token_that_was_not_guessed_begins_a_new_tree(tree: GuessTree) -> None:
    tree.advance([1, 50, 51])
    assert (tree.root.token_id, tree.root.position, tree.length) == (51, 2, 3)
    assert tree.best_to_read(8, 0.01, 100)[0] is tree.root


def test_what_is_read_of_a_branch_that_the_text_left_is_dropped(tree: GuessTree) -> None:
    five = tree.root.children[2].children[5]
    tree.advance([1])
    assert not tree.contains(five)
    tree.grow(five, Guesses((7,), (0.0,)), NUM_IDS)
    assert all(node.token_id != 7 for node in tree.nodes())


def test_nodes_are_read_once_and_not_behind_the_end_of_the_text(tree: GuessTree) -> None:
    fresh = tree.best_to_read(8, 1e-9, end=100)
    assert {node.token_id for node in fresh} == {4, 5, 6}
    assert tree.best_to_read(8, 1e-9, end=3) == [node for node in fresh if node.position < 2]
    tree.read(fresh)
    assert tree.best_to_read(8, 1e-9, end=100) == []


def test_tokens_that_the_target_does_not_have_are_not_guessed() -> None:
    tree = GuessTree(Confidence())
    (known,) = grow(tree, tree.root, NUM_IDS, 5)
    assert list(tree.root.children.values()) == [known]
    assert tree.root.guesses is not None
    assert tree.root.guesses.token_ids == (5,)


def test_it_learns_how_good_the_draft_is_from_the_text(tree: GuessTree) -> None:
    confidence = Confidence()
    learning = GuessTree(confidence)
    for _ in range(300):
        grow(learning, learning.root, 1, 2, 3)
        learning.advance([9])
    assert confidence.miss > 0.8


def test_a_guess_that_was_too_improbable_counts_once_the_text_comes_near() -> None:
    tree = GuessTree(Confidence())
    _, unlikely = grow(tree, tree.root, 1, 2, lead=2.5)
    grow(tree, unlikely, 5, 6, lead=2.5)
    assert list(unlikely.children) == [5]  # 6 is not even thought of
    tree.advance([2])
    assert list(tree.root.children) == [5, 6]
    assert {node.token_id for node in tree.unoffered(1e-9, 9)} == {5, 6}


def test_log_probabilities_add_up_along_a_path(tree: GuessTree) -> None:
    six = tree.root.children[1].children[3].children[6]
    expected = sum(Confidence().log_probabilities(scores)[0] for scores in ((0.0, -2.0), (0.0, -2.0), (0.0,)))
    assert tree.prob(six) == pytest.approx(math.exp(expected))


def test_a_chain_that_was_looked_up_hangs_beside_what_the_draft_guesses(tree: GuessTree) -> None:
    three = tree.root.children[1].children[3]
    before = [tree.prob(node) for node in tree.nodes()]
    tree.add_chain([1, 3, 8, 9], [math.log(0.9)] * 4, NUM_IDS)
    eight, nine = three.children[8], three.children[8].children[9]
    # Where the draft has read, it knows better: it has not guessed 8, so it had to be wrong. What follows 8 it has not.
    assert [tree.prob(node) for node in tree.nodes() if node not in (eight, nine)] == before
    assert tree.prob(eight) == pytest.approx(tree.prob(three) * Confidence().miss * 0.9)
    assert tree.prob(nine) == pytest.approx(tree.prob(eight) * 0.9)
    assert {eight, nine} <= set(tree.best_to_read(9, 1e-9, 100))  # the draft may read on from there
    tree.add_chain([1, 3, 8, 9], [math.log(0.99)] * 4, NUM_IDS)
    assert tree.prob(eight) == pytest.approx(tree.prob(three) * Confidence().miss * 0.9)
    assert tree.prob(nine) == pytest.approx(tree.prob(eight) * 0.99)  # the likelier of two lookups counts


def test_once_the_draft_has_read_a_place_what_was_looked_up_behind_it_is_as_probable_as_it_says() -> None:
    tree = GuessTree(Confidence())
    for token_ids in ([1, 2], [7, 8]):
        tree.add_chain(token_ids, [math.log(0.4), math.log(0.9)], NUM_IDS)
    tree.offer(tree.unoffered(1e-9, 9))
    one, five = grow(tree, tree.root, 1, 5)[0], tree.root.children[5]
    assert one.is_offered
    own = [math.exp(log_prob) for log_prob in Confidence().log_probabilities((0.0, -2.0))]
    assert [tree.prob(one), tree.prob(five)] == pytest.approx(own)
    assert tree.prob(one.children[2]) == pytest.approx(own[0] * 0.9)
    assert tree.prob(tree.root.children[7].children[8]) == pytest.approx(0.4 * Confidence().miss * 0.9)
    assert [node.token_id for node in tree.unoffered(1e-9, 9)] == [5]
    assert sorted(node.token_id or 0 for node in tree.best_to_read(9, 1e-9, 9)) == [1, 2, 5, 7, 8]


def test_a_chain_ends_before_a_token_that_the_target_does_not_have() -> None:
    tree = GuessTree(Confidence())
    tree.add_chain([1, NUM_IDS, 2], [-0.1, -0.1, -0.1], NUM_IDS)
    assert [node.token_id for node in tree.nodes()] == [None, 1]
