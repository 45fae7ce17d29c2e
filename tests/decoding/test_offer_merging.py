from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.core import Draft, TreeShape
from skydraft.decoding.offer_merging import extension, fitting, is_ahead, merge_offers
from tests.linked import random_tree


def test_a_chain_is_cut_where_the_log_ends() -> None:
    assert extension(Draft.chain(3, (5, 6, 7)), [0, 0, 0, 5]) == Draft.chain(4, (6, 7))


def test_a_chain_that_the_log_holds_whole_is_stale() -> None:
    assert extension(Draft.chain(1, (5, 6)), [0, 5, 6]) is None


def test_a_chain_that_disagrees_is_stale() -> None:
    assert extension(Draft.chain(1, (5, 6, 7)), [0, 5, 9]) is None


def test_forced_tokens_that_the_log_holds_are_forced_no_more() -> None:
    assert extension(Draft.chain(0, (1, 2, 3, 4), num_forced=3), [1, 2]) == Draft.chain(2, (3, 4), num_forced=1)


def test_a_tree_is_cut_to_what_follows_the_log() -> None:
    tree = Draft(0, (1, 2, 3, 4, 5), TreeShape((0, 0, 1, 2, 3)))  # 1 -> 3 -> 5 and 2 -> 4
    assert extension(tree, [1]) == Draft(1, (3, 5), TreeShape((0, 1)))
    assert extension(tree, [2]) == Draft(1, (4,), TreeShape((0,)))
    assert extension(tree, [1, 3, 5]) is None
    assert extension(tree, [4]) is None


def test_an_offer_beyond_the_log_is_ahead() -> None:
    assert is_ahead(Draft.chain(2, (1,)), [0])
    assert not is_ahead(Draft.chain(1, (1,)), [0])


@given(rng=st.randoms(use_true_random=False))
def test_a_trees_paths_are_those_of_its_remainder_after_the_log(rng: Random) -> None:
    token_ids, shape = random_tree(rng, [], 0, rng.randint(1, 12))
    draft = Draft(0, tuple(token_ids), shape)
    texts = {tuple(draft.token_ids[node] for node in draft.shape.path_to(row)) for row in range(len(token_ids) + 1)}
    log_ids = rng.choice(sorted(texts))
    rest = extension(draft, log_ids)
    longer = {text[len(log_ids) :] for text in texts if len(text) > len(log_ids) and text[: len(log_ids)] == log_ids}
    if rest is None:
        assert not longer
        return
    assert rest.start == len(log_ids)
    paths = [rest.shape.path_to(row + 1) for row in range(len(rest.token_ids))]
    assert {tuple(rest.token_ids[node] for node in path) for path in paths} == longer
    assert rest.check() == rest
    assert rest.shape.children[0]


def test_guesses_of_several_offers_are_numbered_in_order_of_first_appearance() -> None:
    waiting = [Draft.chain(1, (5, 6)), Draft(1, (5, 7, 8), TreeShape((0, 1, 0)))]
    merged = merge_offers(waiting, [4], is_set_of_guesses=True)
    assert merged == (Draft(1, (5, 6, 7, 8), TreeShape((0, 1, 1, 0))), (0, 1))


def test_an_offer_that_repeats_guesses_is_passed_over_and_one_too_many_waits() -> None:
    waiting = [Draft.chain(0, (5, 6)), Draft.chain(0, (5,)), Draft.chain(0, (7,)), Draft.chain(0, (8,))]
    merged = merge_offers(waiting, [], is_set_of_guesses=True, max_offers=2)
    assert merged == (Draft(0, (5, 6, 7), TreeShape((0, 1, 0))), (0, 2))


@pytest.mark.parametrize(("max_nodes", "taken"), [(6, (0, 1)), (5, (0,)), (3, (0,)), (2, (0,))])
def test_an_offer_that_makes_a_draft_too_large_waits_unless_it_is_the_first(
    max_nodes: int, taken: tuple[int, ...]
) -> None:
    waiting = [Draft.chain(0, (1, 2, 3)), Draft.chain(0, (4, 5, 6))]
    merged = merge_offers(waiting, [], is_set_of_guesses=True, max_nodes=max_nodes)
    assert merged is not None
    assert merged.indexes == taken
    assert len(merged.draft.token_ids) == 3 * len(taken)


@pytest.mark.parametrize("is_set_of_guesses", [False, True])
def test_forced_tokens_and_other_rules_are_judged_alone(is_set_of_guesses: bool) -> None:
    first, second = Draft.chain(0, (1, 2), num_forced=int(is_set_of_guesses)), Draft.chain(0, (4,))
    assert merge_offers([first, second], [], is_set_of_guesses) == (first, (0,))


def test_guesses_are_cut_to_the_room_of_a_slot_and_forced_tokens_never() -> None:
    tree = Draft(4, (1, 2, 3, 4), TreeShape((0, 0, 1, 2)))
    assert fitting(tree, True, room=8) == tree
    assert fitting(tree, True, room=6) == Draft(4, (1, 2), TreeShape((0, 0)))
    assert fitting(tree, False, room=6) == tree
    forced = Draft.chain(4, (1, 2, 3, 4), num_forced=3)
    assert fitting(forced, True, room=5) == Draft.chain(4, (1, 2, 3), num_forced=3)
