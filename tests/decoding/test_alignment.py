from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from skydraft.core import Draft
from skydraft.decoding.alignment import has_child, is_ahead, parents_of, path_to, remainder
from tests.linked import random_tree


def test_a_chain_is_cut_where_the_log_ends() -> None:
    assert remainder(Draft(3, (5, 6, 7)), [0, 0, 0, 5]) == Draft(4, (6, 7))


def test_a_chain_that_the_log_holds_whole_is_stale() -> None:
    assert remainder(Draft(1, (5, 6)), [0, 5, 6]) is None


def test_a_chain_that_disagrees_is_stale() -> None:
    assert remainder(Draft(1, (5, 6, 7)), [0, 5, 9]) is None


def test_forced_tokens_that_the_log_holds_are_forced_no_more() -> None:
    assert remainder(Draft(0, (1, 2, 3, 4), num_forced=3), [1, 2]) == Draft(2, (3, 4), num_forced=1)


def test_a_tree_is_cut_to_what_follows_the_log() -> None:
    tree = Draft(0, (1, 2, 3, 4, 5), parents=(0, 0, 1, 2, 3))  # 1 -> 3 -> 5 and 2 -> 4
    assert remainder(tree, [1]) == Draft(1, (3, 5), parents=(0, 1))
    assert remainder(tree, [2]) == Draft(1, (4,), parents=(0,))
    assert remainder(tree, [1, 3, 5]) is None
    assert remainder(tree, [4]) is None


def test_an_offer_beyond_the_log_is_ahead() -> None:
    assert is_ahead(Draft(2, (1,)), [0])
    assert not is_ahead(Draft(1, (1,)), [0])


@given(rng=st.randoms(use_true_random=False))
def test_a_trees_paths_are_those_of_its_remainder_after_the_log(rng: Random) -> None:
    token_ids, parents = random_tree(rng, [], 0, rng.randint(1, 12))
    draft = Draft(0, tuple(token_ids), tuple(parents))
    texts = {tuple(draft.token_ids[node] for node in path_to(draft, row)) for row in range(len(token_ids) + 1)}
    log_ids = rng.choice(sorted(texts))
    rest = remainder(draft, log_ids)
    longer = {text[len(log_ids) :] for text in texts if len(text) > len(log_ids) and text[: len(log_ids)] == log_ids}
    if rest is None:
        assert not longer
        return
    assert rest.start == len(log_ids)
    assert {tuple(rest.token_ids[n] for n in path_to(rest, row + 1)) for row in range(len(rest.token_ids))} == longer
    assert all(parent <= node for node, parent in enumerate(parents_of(rest)))
    assert has_child(rest, 0)
