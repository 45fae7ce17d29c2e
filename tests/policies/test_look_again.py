"""Looks at a cloud that was slow: rarer and rarer, and never none."""

from skydraft.policies.look_again import LookAgain


def looks(look_again: LookAgain, num_tokens: int) -> list[int]:
    """After how many tokens."""
    return [count for count in range(1, num_tokens + 1) if look_again.wrote(1)]


def test_pauses_double_up_to_a_longest() -> None:
    found = looks(LookAgain(), 5000)
    assert [later - earlier for earlier, later in zip([0, *found], found, strict=False)] == [
        16, 32, 64, 128, 256, 512, 1024, 1024, 1024,
    ]  # fmt: skip


def test_texts_count_together_and_going_back_begins_anew() -> None:
    look_again = LookAgain()
    assert looks(look_again, 10) == []
    assert looks(look_again, 10) == [6]
    look_again.went_back()
    assert looks(look_again, 16) == [16]
