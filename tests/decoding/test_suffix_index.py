from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from skydraft.decoding.suffix_index import KEY, LONGEST, MOST_PLACES, START, Match, SuffixIndex

TOKENS = st.integers(0, 2)  # few, so that much is repeated
DOCUMENTS = st.lists(st.lists(TOKENS, max_size=40), min_size=1, max_size=4)


def index_of(documents: Sequence[Sequence[int]], capacity: int = 2**17) -> SuffixIndex:
    index = SuffixIndex(capacity)
    for document in documents:
        index.begin_document()
        index.extend(document)
    return index


def flat(documents: Sequence[Sequence[int]]) -> list[int]:
    return [token_id for document in documents for token_id in (*(START,) * KEY, *document)]


def num_common(suffix: Sequence[int], before: Sequence[int]) -> int:
    lengths = range(min(len(suffix), len(before), LONGEST), -1, -1)
    return next(length for length in lengths if list(suffix[len(suffix) - length :]) == before[len(before) - length :])


def longest_matches(ids: Sequence[int], suffix: Sequence[int]) -> list[Match]:
    """Every place compared with the suffix: of the latest ones the longest in front of each token."""
    lengths = {place: num_common(suffix, ids[:place]) for place, token_id in enumerate(ids) if token_id != START}
    latest = sorted((place for place, length in lengths.items() if length >= KEY), reverse=True)[:MOST_PLACES]
    best: dict[int, Match] = {}
    for place in latest:
        match = Match(lengths[place], place)
        best[ids[place]] = max(best.get(ids[place], match), match)
    return sorted(best.values(), reverse=True)


@given(documents=DOCUMENTS, asked=st.lists(TOKENS, max_size=40), is_end=st.booleans(), count=st.integers(1, 3))
def test_what_is_found_is_what_comparing_every_place_finds(
    documents: list[list[int]], asked: list[int], is_end: bool, count: int
) -> None:
    suffix = [START, START, *documents[-1]] if is_end else asked  # of a growing text, as it is used
    index, ids = index_of(documents), flat(documents)
    assert len(index) == len(ids)
    assert index.find(suffix, count) == longest_matches(ids, suffix)[:count]


@given(documents=DOCUMENTS, cut=st.integers(0, 40))
def test_an_index_that_grew_token_by_token_is_the_same(documents: list[list[int]], cut: int) -> None:
    *before, last = documents
    grown = index_of([*before, last[:cut]])
    for token_id in last[cut:]:
        grown.extend((token_id,))
    whole = index_of(documents)
    assert grown.find(last, 3) == whole.find(last, 3)


def test_what_follows_a_place_ends_with_its_document() -> None:
    index = index_of([[1, 2, 3, 4], [5, 6]])
    (match,) = index.find([1, 2], 3)
    assert match.length == 2
    assert index.following(match.place, 1) == [3]
    assert index.following(match.place, 9) == [3, 4]


def test_a_text_that_repeats_itself_goes_on_to() -> None:
    index = index_of([[7, 8, 1, 2, 3, 1, 2, 3, 1, 2]])
    best = index.find([1, 2, 3, 1, 2], 1)[0]
    assert best.length == 5
    assert index.following(best.place, 8) == [3, 1, 2, 3, 1, 2, 3, 1]


def test_no_match_goes_beyond_the_beginning_of_a_document() -> None:
    index = index_of([[1, 2], [3, 4], [1]])
    assert index.find([2, 3], 3) == []
    assert index.find([START, START], 3)[0].length == KEY  # how documents begin
    assert index.find([4], 3) == []


@given(documents=DOCUMENTS, capacity=st.integers(4, 60))
def test_memory_is_bounded_and_what_is_kept_is_found(documents: list[list[int]], capacity: int) -> None:
    index, ids = SuffixIndex(capacity), flat(documents)
    for token_id in ids:
        index.extend((token_id,))
        assert len(index) <= capacity
    kept = ids[len(ids) - len(index) :]
    assert len(index) >= min(capacity // 2, len(ids))
    suffix = documents[-1]
    for match in index.find(suffix, 3):
        assert kept[match.place - match.length : match.place] == suffix[len(suffix) - match.length :]
