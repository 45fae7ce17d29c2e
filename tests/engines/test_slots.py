import numpy as np
import pytest

from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import EngineLimits, Extension, PromptChunk
from skydraft.engines.slots import SlotBook, SlotTree, lineage
from skydraft.errors import CacheOverflow, EngineError

LIMITS = EngineLimits(num_slots=2, max_length=10)
TREE = (0, 0, 1, 1, 4)  # 0 -> (2, 3 -> 4), 1


def opened(prompt_length: int = 3) -> SlotBook:
    book = SlotBook(LIMITS)
    assert book.allocate(prompt_length) == 0
    return book


def extend(book: SlotBook, *extensions: Extension) -> None:
    book.commit(book.place(extensions, 100))


def test_positions_count_ancestors_and_lineage_marks_them() -> None:
    tree = SlotTree(7, TreeShape(TREE))
    assert tree.positions.tolist() == [7, 7, 8, 8, 9]
    assert lineage(tree.shape).astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 1, 1],
    ]


def test_tokens_are_placed_in_a_row_and_positions_follow_the_tree() -> None:
    (placement,) = opened().place([Extension(0, [5, 6, 7, 8, 9], TreeShape(TREE))], 100)
    assert (placement.start, placement.end) == (3, 8)
    assert placement.positions.tolist() == [3, 3, 4, 4, 5]


def test_a_tree_that_grows_goes_on_where_it_ended() -> None:
    book = opened()
    extend(book, Extension(0, [5, 6], TreeShape((0, 0))))
    (placement,) = book.place([Extension(0, [7, 8], TreeShape((0, 0, 2, 3)))], 100)
    assert (placement.start, placement.end) == (5, 7)
    assert placement.tree.shape.parents == (0, 0, 2, 3)
    assert placement.positions.tolist() == [4, 5]


def test_placing_changes_nothing() -> None:
    book = opened()
    first = book.place([Extension.chain(0, [5, 6])], 100)
    assert book.place([Extension.chain(0, [5, 6])], 100) == first


def test_a_kept_path_moves_to_the_front() -> None:
    book = opened()
    extend(book, Extension(0, [5, 6, 7, 8, 9], TreeShape(TREE)))
    assert book.keep_path(0, 0, [0, 3, 4]).tolist() == [3, 6, 7]
    (placement,) = book.place([Extension.chain(0, [1])], 100)
    assert placement.start == 6


def test_a_chain_may_follow_a_tree_that_is_one() -> None:
    book = opened()
    extend(book, Extension(0, [5, 6], TreeShape((0, 1))))
    extend(book, Extension(0, [7], TreeShape((0,))))
    assert book.crop(0, 3) == 6


def test_leading_nodes_of_a_tree_may_be_kept_by_a_crop() -> None:
    book = opened()
    extend(book, Extension(0, [5, 6, 7], TreeShape((0, 1, 1))))
    assert book.crop(0, 2) == 5


@pytest.mark.parametrize("keep_length", [-1, 3])
def test_a_crop_to_what_is_not_there_is_refused(keep_length: int) -> None:
    book = opened()
    extend(book, Extension(0, [5, 6, 7], TreeShape((0, 1, 1))))
    with pytest.raises(ValueError, match="cannot be cropped"):
        book.crop(0, keep_length)


@pytest.mark.parametrize("path", [[1, 2], [4], [0, 4], [0, 3, 3], [5], [-1]])
def test_what_is_no_path_cannot_be_kept(path: list[int]) -> None:
    book = opened()
    extend(book, Extension(0, [5, 6, 7, 8, 9], TreeShape(TREE)))
    with pytest.raises(ValueError, match="no path"):
        book.keep_path(0, 0, path)


def test_a_path_of_an_extension_that_began_elsewhere_cannot_be_kept() -> None:
    book = opened()
    extend(book, Extension.chain(0, [5, 6]))
    with pytest.raises(ValueError, match="did not begin at position 1"):
        book.keep_path(0, 1, [0])


@pytest.mark.parametrize(
    "extension",
    [
        Extension.chain(0, []),
        Extension(0, [5], TreeShape((1,))),
        Extension(0, [5, 6], TreeShape((0, -1))),
        Extension(0, [5, 6], TreeShape((0,))),
        Extension(0, [5, 6], TreeShape((0, 2))),
        Extension.chain(1, [5]),
        Extension(0, [5], TreeShape((0, 0))),
    ],
)
def test_wrong_use_is_refused(extension: Extension) -> None:
    with pytest.raises(ValueError, match="slot|parents"):
        opened().place([extension], 100)


def test_a_slot_is_extended_once_in_a_pass() -> None:
    with pytest.raises(ValueError, match="twice"):
        opened().place([Extension.chain(0, [5]), Extension.chain(0, [6])], 100)


def test_an_undecided_tree_must_be_decided_first() -> None:
    book = opened()
    extend(book, Extension(0, [5, 6], TreeShape((0, 0))))
    with pytest.raises(ValueError, match="undecided"):
        book.place([Extension.chain(0, [7])], 100)


@pytest.mark.parametrize("token_id", [-1, 100])
def test_ids_outside_of_the_vocabulary_are_refused(token_id: int) -> None:
    with pytest.raises(EngineError, match=f"token id {token_id} "):
        opened().place([Extension.chain(0, [5, token_id])], 100)


def test_slots_are_given_out_lowest_first_and_again() -> None:
    book = SlotBook(LIMITS)
    assert [book.allocate(1), book.allocate(1)] == [0, 1]
    with pytest.raises(CacheOverflow, match="all 2 slots"):
        book.allocate(1)
    book.release(0)
    assert book.allocate(1) == 0


def test_a_slot_takes_as_much_as_it_has_room_for() -> None:
    book = opened(prompt_length=3)
    book.place([Extension.chain(0, [1] * 7)], 100)
    with pytest.raises(CacheOverflow, match="holds 3 tokens, and 8 more do not fit into 10"):
        book.place([Extension.chain(0, [1] * 8)], 100)
    assert book.allocate(10) == 1
    with pytest.raises(CacheOverflow, match="prompt has 11 tokens"):
        book.allocate(11)


def test_release_tells_how_far_a_slot_was_used() -> None:
    book = opened(prompt_length=3)
    extend(book, Extension.chain(0, [1] * 6))
    book.crop(0, 0)
    book.place([Extension.chain(0, [1])], 100)
    assert book.release(0) == 9


def test_a_pass_that_failed_may_have_used_a_slot_too() -> None:
    book = opened(prompt_length=3)
    book.place([Extension.chain(0, [1] * 6)], 100)
    assert book.release(0) == 9


def test_lineage_of_a_random_tree_is_the_transitive_closure() -> None:
    random = np.random.default_rng(0)
    parents = tuple(int(random.integers(0, i + 1)) for i in range(40))
    tree = SlotTree(0, TreeShape(parents))
    for node in range(40):
        path, parent = {node}, parents[node]
        while parent:
            path.add(parent - 1)
            parent = parents[parent - 1]
        assert set(np.flatnonzero(lineage(tree.shape)[node])) == path
        assert tree.positions[node] == len(path) - 1


def test_a_reserved_slot_reads_its_prompt_in_pieces_and_nothing_else_before() -> None:
    book = SlotBook(LIMITS)
    slot = book.reserve([5, 6, 7])
    for extension in (Extension.chain(slot, [1]), PromptChunk(slot, 4), PromptChunk(slot, 0)):
        with pytest.raises(ValueError, match="prompt"):
            book.place([extension], 100)
    with pytest.raises(ValueError, match="cannot be cropped"):
        book.crop(slot, 0)
    placements = []
    for num_tokens in (2, 1):
        (placement,) = book.place([PromptChunk(slot, num_tokens)], 100)
        book.commit([placement])
        placements.append((placement.token_ids, placement.start, placement.num_rows))
    assert placements == [([5, 6], 0, 0), ([7], 2, 1)]
    assert book.num_unread(slot) == 0
    with pytest.raises(ValueError, match="has 0 left"):
        book.place([PromptChunk(slot, 1)], 100)
    extend(book, Extension.chain(slot, [1]))
    assert book.crop(slot, 0) == 3


def test_a_slot_that_was_reserved_and_not_read_is_closed_clean() -> None:
    book = SlotBook(LIMITS)
    assert book.release(book.reserve([5, 6, 7])) == 0


def test_a_prompt_of_which_a_part_is_held_is_read_from_there() -> None:
    book = SlotBook(LIMITS)
    slot = book.reserve([5, 6, 7], num_held=2)
    (placement,) = book.place([PromptChunk(slot, 1)], 100)
    assert (placement.token_ids, placement.start, placement.num_rows) == ([7], 2, 1)
    with pytest.raises(ValueError, match="a prompt of 2 tokens cannot begin with 2 that are read"):
        book.reserve([5, 6], num_held=2)
    assert book.reserve([5, 6]) == 1


def test_only_tokens_that_follow_one_another_can_be_copied() -> None:
    book = opened()
    extend(book, Extension.chain(0, [5, 6]))
    extend(book, Extension(0, [7, 8], TreeShape((0, 0))))
    book.require_held(0, 1, 5)
    unread = book.reserve([1, 2], num_held=1)
    for slot, start, end in ((0, 1, 6), (0, 2, 2), (0, -1, 2), (unread, 0, 1)):
        with pytest.raises(ValueError, match=f"tokens {start} to {end} of slot {slot} are not to be had"):
            book.require_held(slot, start, end)


def test_a_swapped_slot_goes_on_where_it_was() -> None:
    book = opened()
    extend(book, Extension.chain(0, [5, 6, 7]))
    book.crop(0, 1)
    swapped = book.swap_out(0)
    assert (swapped.prompt_length, swapped.length, swapped.high_water) == (3, 4, 6)
    assert book.allocate(5) == 0
    assert book.swap_in(swapped) == 1
    (placement,) = book.place([Extension.chain(1, [8])], 100)
    assert placement.start == 4
    with pytest.raises(CacheOverflow, match="all 2 slots"):
        book.swap_in(swapped)


def test_only_a_settled_slot_is_swapped_out() -> None:
    book = opened()
    extend(book, Extension(0, [5, 6], TreeShape((0, 0))))
    assert book.reserve([1, 2]) == 1
    for slot in (0, 1):
        with pytest.raises(ValueError, match=f"slot {slot} is not settled"):
            book.swap_out(slot)
    book.keep_path(0, 0, [1])
    assert book.swap_out(0).length == 4
