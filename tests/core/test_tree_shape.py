from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.core import TreeShape

FORK = TreeShape((0, 0, 1, 2, 3))  # 0 -> 2 -> 4 and 1 -> 3


def random_shape(rng: Random) -> TreeShape:
    return TreeShape(tuple(rng.randint(0, node) for node in range(rng.randint(0, 12))))


def test_rows_and_parents_of_a_small_tree() -> None:
    assert FORK.children == ((0, 1), (2,), (3,), (4,), (), ())
    assert FORK.depths == (0, 1, 1, 2, 2, 3)
    assert FORK.path_to(5) == (0, 2, 4)
    assert FORK.path_to(0) == ()
    assert FORK.nodes_below(1) == [2, 4]
    assert FORK.num_in_chain == 1
    assert not FORK.is_chain


def test_a_chain_is_a_tree_too() -> None:
    chain = TreeShape.chain(3)
    assert chain.parents == (0, 1, 2)
    assert chain.is_chain
    assert chain.children == ((0,), (1,), (2,), ())
    assert TreeShape(()).is_chain


@pytest.mark.parametrize("parents", [(1,), (0, 2), (0, -1), (0, 1, 3)])
def test_a_node_that_does_not_come_after_its_parent_is_refused(parents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="hangs from row"):
        TreeShape(parents).check()


@pytest.mark.parametrize("nodes", [[4], [2, 2], [4, 2], [1], [2, 9]])
def test_a_subtree_without_a_parent_or_out_of_order_is_refused(nodes: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot be kept"):
        FORK.subtree(1, nodes)


def test_a_path_is_known_from_other_nodes() -> None:
    assert FORK.has_path([])
    assert FORK.has_path([0, 2, 4])
    assert not FORK.has_path([0, 3])
    assert not FORK.has_path([2])
    assert not FORK.has_path([0, 2, 4, 5])


@given(rng=st.randoms(use_true_random=False))
def test_what_hangs_below_a_row_is_a_tree_with_the_same_paths(rng: Random) -> None:
    shape = random_shape(rng).check()
    row = rng.randint(0, len(shape))
    nodes = shape.nodes_below(row)
    subtree = shape.subtree(row, nodes).check()
    prefix = shape.path_to(row)
    for index, node in enumerate(nodes):
        assert prefix + tuple(nodes[i] for i in subtree.path_to(index + 1)) == shape.path_to(node + 1)


@given(rng=st.randoms(use_true_random=False), num_before=st.integers(0, 4))
def test_a_tree_below_a_chain_keeps_its_branches(rng: Random, num_before: int) -> None:
    shape = random_shape(rng)
    longer = shape.below_chain(num_before).check()
    assert longer.num_in_chain == num_before + shape.num_in_chain
    assert longer.subtree(num_before, range(num_before, len(longer))) == shape
    assert [depth - num_before for depth in longer.depths[num_before:]] == list(shape.depths)


@given(rng=st.randoms(use_true_random=False), count=st.integers(0, 14))
def test_the_first_nodes_of_a_tree_are_a_tree(rng: Random, count: int) -> None:
    shape = random_shape(rng)
    assert shape.first(count).check().parents == shape.parents[:count]
