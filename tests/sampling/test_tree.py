from __future__ import annotations

import pytest

from skydraft.core import Draft, SamplingParams
from skydraft.errors import RemoteProtocolError
from skydraft.sampling.tree import read_tree

PARAMS = SamplingParams(max_tokens=100)


def test_a_chain_judges_each_node_by_the_row_before_it() -> None:
    tree = read_tree(Draft(7, (5, 6, 7)), PARAMS)
    assert tree.parents == (0, 1, 2)
    assert tree.children == ((0,), (1,), (2,), ())
    assert tree.positions == (7, 8, 9, 10)
    assert tree.reachable_rows() == [0, 1, 2, 3]
    assert tree.judged_nodes() == [0, 1, 2]


def test_positions_of_a_tree_follow_depth() -> None:
    tree = read_tree(Draft(3, (1, 2, 1, 2, 9), parents=(0, 0, 1, 1, 3)), PARAMS)
    assert tree.children == ((0, 1), (2, 3), (), (4,), (), ())
    assert tree.positions == (3, 4, 4, 5, 5, 6)


def test_rows_beside_or_before_forced_nodes_are_not_reachable() -> None:
    tree = read_tree(Draft(0, (1, 2, 3, 4, 5), parents=(0, 1, 1, 2, 0), num_forced=2), PARAMS)
    assert tree.forced == ((0, 1), 2)
    assert tree.reachable_rows() == [2, 4]
    assert tree.judged_nodes() == [3]


@pytest.mark.parametrize(
    ("params", "reachable"),
    [
        (SamplingParams(max_tokens=7), [0, 1]),
        (SamplingParams(max_tokens=5), []),
        (SamplingParams(max_tokens=100, end_ids=(11, 13)), [0, 1, 2]),
    ],
)
def test_rows_after_the_end_of_the_text_are_not_reachable(params: SamplingParams, reachable: list[int]) -> None:
    tree = read_tree(Draft(5, (10, 12, 13, 14)), params)
    assert tree.reachable_rows() == reachable


@pytest.mark.parametrize(
    ("params", "path"),
    [(SamplingParams(max_tokens=7), (0, 1)), (SamplingParams(max_tokens=100, end_ids=(10,)), (0,))],
)
def test_forced_tokens_stop_where_the_text_ends(params: SamplingParams, path: tuple[int, ...]) -> None:
    assert read_tree(Draft(5, (10, 11, 12), num_forced=3), params).forced == (path, None)


def test_a_walk_takes_the_first_child_that_holds() -> None:
    tree = read_tree(Draft(0, (1, 2, 3, 4), parents=(0, 0, 2, 2)), PARAMS)
    assert tree.walk({0, 1, 3}.__contains__) == ((0,), 1)
    assert tree.walk({1, 3}.__contains__) == ((1, 3), 4)
    assert tree.walk({3}.__contains__) == ((), 0)


def test_the_widest_drafts_are_read_in_linear_time() -> None:
    num_nodes = 20_000
    tree = read_tree(Draft(0, tuple(range(num_nodes))), SamplingParams(max_tokens=2**20))
    assert len(tree.reachable_rows()) == num_nodes + 1


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (Draft(-1, (1,)), "starts at position -1"),
        (Draft(0, (1, 2), parents=(0,)), "2 tokens and 1 parents"),
        (Draft(0, (1, 2), parents=(0, 2)), "node 1 of the draft has parent 2"),
        (Draft(0, (1, 2), parents=(1, 0)), "node 0 of the draft has parent 1"),
        (Draft(0, (1, 2), parents=(0, -1)), "parent -1"),
        (Draft(0, (1, 2), num_forced=3), "3 of the draft's 2 tokens are forced"),
        (Draft(0, (1, 2), num_forced=-1), "-1 of the draft's 2 tokens are forced"),
        (Draft(0, (1, 2), parents=(0, 0), num_forced=2), "must be a chain from the root"),
        (Draft(0, (1, 4, 4), parents=(0, 1, 1)), "same token twice among \\[4, 4\\]"),
    ],
)
def test_a_malformed_draft_is_the_peers_error(draft: Draft, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        read_tree(draft, PARAMS)
