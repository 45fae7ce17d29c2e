from __future__ import annotations

import pytest

from skydraft.tasks.emotions import EMOTION_WORDS, emotion_of


@pytest.mark.parametrize(("emotion", "words"), EMOTION_WORDS.items())
def test_each_word_of_an_emotion_names_it(emotion: str, words: tuple[str, ...]) -> None:
    for word in words:
        assert emotion_of(f"A man sounds {word}, loudly.") == emotion
        assert emotion_of(f"{word.capitalize()}!") == emotion


def test_the_first_word_counts() -> None:
    assert emotion_of("He sounds furious. The feeling is calm.") == "angry"


@pytest.mark.parametrize("text", ["", "The pitch is high.", "Saddened by unhappy things."])
def test_a_text_may_name_none(text: str) -> None:
    assert emotion_of(text) is None
