from __future__ import annotations

import pytest

from skydraft.tasks.emotions import EMOTION_WORDS, by_emotion, emotion_of


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


def test_the_words_of_an_emotion_count_together() -> None:
    assert by_emotion({1: "sad", 2: "calm", 3: "sad"}, [0.5, 0.3, 0.2]) == {"sad": 0.7, "calm": 0.3}
