"""Stop strings: nothing of one is shown, and nothing is withheld that does not begin one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.text.tokenizer import UNFINISHED
from skydraft.text.until_stop import TextUntilStop
from tests.cli.made_up import BYTES


class Parts:
    """A token is a part of a text; the last of them is special and has none."""

    def __init__(self, *parts: str) -> None:
        self.parts = parts

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self.parts[token_id] for token_id in token_ids if token_id < len(self.parts))


def fed(parts: Sequence[str], stops: Sequence[str]) -> tuple[list[str], TextUntilStop]:
    """What is shown after each part, and at the end."""
    text = TextUntilStop(Parts(*parts), stops)  # type: ignore[arg-type]
    return [*(text.feed(token_id) for token_id in range(len(parts))), text.flush()], text


@pytest.mark.parametrize(
    ("parts", "stops", "shown", "stop", "num_shown"),
    [
        (["The end", "<", "|", "end_", "story", "|>", "more"], ["<|end_story|>"], ["The end"], "<|end_story|>", 1),
        (["The end<", "|end_story|> and"], ["<|end_story|>"], ["The end"], "<|end_story|>", 1),
        (["a<", "|", "b"], ["<|end"], ["a", "", "<|b"], None, 3),
        (["a<", "<|e", "nd", "x"], ["<|end"], ["a", "<"], "<|end", 1),
        (["a<|", "e"], ["<|end"], ["a", "", "<|e"], None, 2),
        (["one two", " three"], ["two", "one"], [], "one", 0),
        (["ab", "c"], ["abc", "bx"], ["", ""], "abc", 0),
        (["aab"], ["ab"], ["a"], "ab", 1),
        (["aa", "ab"], ["aab"], ["", "a"], "aab", 1),
        (["no", "thing"], [], ["no", "thing"], None, 2),
    ],
)
def test_a_text_ends_before_a_stop_string_however_tokens_cut_it(
    parts: list[str], stops: list[str], shown: list[str], stop: str | None, num_shown: int
) -> None:
    pieces, text = fed(parts, stops)
    assert [piece for piece in pieces if piece] == [piece for piece in shown if piece]
    assert pieces[: len(shown)] == shown[: len(pieces)]
    assert (text.stop, text.num_shown) == (stop, num_shown)


@given(
    parts=st.lists(st.text("ab<", min_size=1, max_size=4), max_size=8),
    stops=st.lists(st.text("ab<", min_size=1, max_size=4), max_size=4),
)
def test_only_a_proper_prefix_of_a_stop_string_is_ever_withheld(parts: list[str], stops: list[str]) -> None:
    text, shown, whole = TextUntilStop(Parts(*parts), stops), "", ""  # type: ignore[arg-type]
    for token_id, part in enumerate(parts):
        shown, whole = shown + text.feed(token_id), whole + part
        places = [place for stop in stops if (place := whole.find(stop)) >= 0]
        if places:
            assert text.stop is not None
            assert shown == whole[: min(places)]
            assert text.flush() == ""
            starts = [sum(map(len, parts[:index])) for index in range(token_id + 1)]
            assert text.num_shown == sum(start < min(places) for start in starts)
            return
        withheld = whole.removeprefix(shown)
        assert not withheld or any(len(withheld) < len(stop) and stop.startswith(withheld) for stop in stops)
    assert shown + text.flush() == whole
    assert text.num_shown == len(parts)


def test_an_unfinished_character_hides_a_stop_string_until_it_is_whole() -> None:
    text = TextUntilStop(BYTES, ["é!"])
    shown = [text.feed(byte) for byte in "aé!b".encode()]
    assert "".join(shown) + text.flush() == "a"
    assert text.stop == "é!"
    assert text.num_shown == 1


def test_the_rest_of_a_text_that_breaks_off_within_a_character_may_be_a_stop_string() -> None:
    text = TextUntilStop(BYTES, [UNFINISHED])
    assert text.feed(ord("a")) + text.feed(0xC3) + text.flush() == "a"
    assert text.num_shown == 1


def test_tokens_without_text_are_shown_with_what_follows_them() -> None:
    text = TextUntilStop(Parts("a", "b"))  # type: ignore[arg-type]
    seen = []
    for token_id in (0, 9, 1, 9):
        text.feed(token_id)
        seen.append(text.num_shown)
    assert seen == [1, 1, 3, 3]
    assert text.flush() == ""
    assert text.num_shown == 4


def test_a_stop_string_that_was_written_already_ends_nothing_and_a_later_one_does() -> None:
    text = TextUntilStop(Parts("a stop", " st", "op"), ["stop"])  # type: ignore[arg-type]
    text.follow(0)
    text.follow(1)
    assert text.stop is None
    assert text.feed(2) == ""
    assert text.stop == "stop"
