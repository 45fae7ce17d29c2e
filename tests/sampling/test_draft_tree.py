from __future__ import annotations

import pytest

from skydraft.core import Draft, SamplingParams, TreeShape
from skydraft.sampling.draft_tree import DraftTree

PARAMS = SamplingParams(max_tokens=100)


def test_a_chain_judges_each_node_by_the_row_before_it() -> None:
    tree = DraftTree.read(Draft.chain(7, (5, 6, 7)), PARAMS)
    assert tree.draft.shape.children == ((0,), (1,), (2,), ())
    assert [tree.position(row) for row in range(4)] == [7, 8, 9, 10]
    assert list(tree.reachable_rows) == [0, 1, 2, 3]
    assert tree.judged_nodes() == [0, 1, 2]


def test_positions_of_a_tree_follow_depth() -> None:
    tree = DraftTree.read(Draft(3, (1, 2, 1, 2, 9), TreeShape((0, 0, 1, 1, 3))), PARAMS)
    assert tree.draft.shape.children == ((0, 1), (2, 3), (), (4,), (), ())
    assert [tree.position(row) for row in range(6)] == [3, 4, 4, 5, 5, 6]


def test_rows_beside_or_before_forced_nodes_are_not_reachable() -> None:
    tree = DraftTree.read(Draft(0, (1, 2, 3, 4, 5), TreeShape((0, 1, 1, 2, 0)), num_forced=2), PARAMS)
    assert tree.forced == ((0, 1), 2)
    assert list(tree.reachable_rows) == [2, 4]
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
    tree = DraftTree.read(Draft.chain(5, (10, 12, 13, 14)), params)
    assert list(tree.reachable_rows) == reachable


@pytest.mark.parametrize(
    ("params", "path"),
    [(SamplingParams(max_tokens=7), (0, 1)), (SamplingParams(max_tokens=100, end_ids=(10,)), (0,))],
)
def test_forced_tokens_stop_where_the_text_ends(params: SamplingParams, path: tuple[int, ...]) -> None:
    assert DraftTree.read(Draft.chain(5, (10, 11, 12), num_forced=3), params).forced == (path, None)


def test_a_walk_takes_the_first_child_that_holds() -> None:
    tree = DraftTree.read(Draft(0, (1, 2, 3, 4), TreeShape((0, 0, 2, 2))), PARAMS)
    assert tree.walk({0, 1, 3}.__contains__) == ((0,), 1)
    assert tree.walk({1, 3}.__contains__) == ((1, 3), 4)
    assert tree.walk({3}.__contains__) == ((), 0)


def test_the_widest_drafts_are_read_in_linear_time() -> None:
    num_nodes = 20_000
    tree = DraftTree.read(Draft.chain(0, tuple(range(num_nodes))), SamplingParams(max_tokens=2**20))
    assert len(tree.reachable_rows) == num_nodes + 1
