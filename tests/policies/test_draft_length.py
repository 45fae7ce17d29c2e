from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.errors import ConfigError
from skydraft.policies.draft_length import DraftLength, FixedDraftLength, UgsdDraftLength, draft_length

WHOLE, CORRECTED = True, False


def lengths(policy: DraftLength, outcomes: list[bool]) -> list[int]:
    """The length of the first block and of that after each outcome."""
    seen = [policy.next_length()]
    for is_whole in outcomes:
        drafted = policy.next_length()
        policy.observe(drafted, drafted if is_whole else drafted - 1)
        seen.append(policy.next_length())
    return seen


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], [5]),
        ([WHOLE], [5, 5]),
        ([WHOLE, WHOLE], [5, 5, 7]),
        ([WHOLE, WHOLE, WHOLE, WHOLE], [5, 5, 7, 7, 7]),
        ([CORRECTED], [5, 3]),
        ([CORRECTED, CORRECTED], [5, 3, 3]),
        ([CORRECTED, WHOLE], [5, 3, 5]),
        ([CORRECTED, WHOLE, WHOLE], [5, 3, 5, 7]),
        ([WHOLE, WHOLE, CORRECTED, WHOLE, CORRECTED, WHOLE, WHOLE], [5, 5, 7, 3, 5, 3, 5, 7]),
    ],
)
def test_blocks_have_5_tokens_3_after_a_correction_and_7_after_two_accepted_whole(
    outcomes: list[bool], expected: list[int]
) -> None:
    assert lengths(UgsdDraftLength(), outcomes) == expected


@given(st.lists(st.booleans(), max_size=30))
def test_the_length_depends_on_the_last_two_outcomes_alone(outcomes: list[bool]) -> None:
    assert lengths(UgsdDraftLength(), outcomes)[-1] == lengths(UgsdDraftLength(), outcomes[-2:])[-1]


def test_other_lengths_may_be_given() -> None:
    policy = UgsdDraftLength(base=8, after_correction=2, after_agreement=16)
    assert lengths(policy, [CORRECTED, WHOLE, WHOLE]) == [8, 2, 8, 16]


def test_a_block_accepted_up_to_its_last_token_is_a_correction() -> None:
    policy = UgsdDraftLength()
    policy.observe(5, 4)
    assert policy.next_length() == 3


def test_asking_changes_nothing() -> None:
    policy = UgsdDraftLength()
    policy.observe(5, 5)
    assert [policy.next_length() for _ in range(3)] == [5, 5, 5]


def test_sessions_do_not_share_what_they_observed() -> None:
    first, second = draft_length(0), draft_length(0)
    first.observe(5, 0)
    assert (first.next_length(), second.next_length()) == (3, 5)


def test_a_fixed_length_stays() -> None:
    assert lengths(FixedDraftLength(4), [WHOLE, WHOLE, CORRECTED]) == [4, 4, 4, 4]


def test_the_setting_0_adapts_and_another_is_fixed() -> None:
    assert draft_length(0) == UgsdDraftLength()
    assert draft_length(12) == FixedDraftLength(12)


@pytest.mark.parametrize("length", [1, 64])
def test_the_shortest_and_the_longest_length_are_taken(length: int) -> None:
    assert draft_length(length).next_length() == length


@pytest.mark.parametrize(("num_accepted", "expected"), [(0, 3), (1, 5)])
def test_a_block_of_one_token_counts(num_accepted: int, expected: int) -> None:
    policy = UgsdDraftLength()
    policy.observe(1, num_accepted)
    assert policy.next_length() == expected


@pytest.mark.parametrize("length", [-1, 65])
def test_lengths_out_of_range_are_refused(length: int) -> None:
    sentence = f"a draft length is {length} and must be 1 to 64"
    with pytest.raises(ConfigError, match=sentence):
        draft_length(length)
    for name in ("base", "after_correction", "after_agreement"):
        with pytest.raises(ConfigError, match=sentence):
            UgsdDraftLength(**{name: length})


def test_a_fixed_length_of_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="a draft length is 0"):
        FixedDraftLength(0)


@pytest.mark.parametrize("counts", [(0, 0), (5, 6), (5, -1), (-1, -1)])
@pytest.mark.parametrize("policy", [FixedDraftLength(5), UgsdDraftLength()], ids=["fixed", "ugsd"])
def test_counts_that_cannot_be_are_the_callers_mistake(policy: DraftLength, counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"accepted of -?\d+ drafted tokens"):
        policy.observe(*counts)
    assert policy.next_length() == 5
