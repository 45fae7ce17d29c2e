from __future__ import annotations

import itertools

import numpy as np
import pytest

from skydraft.audio.voice import VoiceMeasurement
from training.captions import EMOTION_WORDS, Thresholds, Traits, caption, emotion_of, is_well_formed, parse, traits
from training.clips import EMOTIONS, SPLIT_ACTORS, Clip, split_of

LIMITS = Thresholds(
    pitch_hz={False: (120.0, 160.0), True: (220.0, 270.0)},
    loudness_db={False: (-43.0, -35.0), True: (-40.0, -32.0)},
    active_s=(1.5, 1.8),
    even_below_semitones=5.0,
    falls_below_semitones=-4.0,
    rises_above_semitones=-1.0,
)


def all_traits() -> list[Traits]:
    levels, moves = range(3), ("even", "falls", "rises", "swings")
    return [
        Traits(*facts)
        for facts in itertools.product(EMOTIONS, (False, True), (False, True), levels, moves, (1,), levels)
    ]


def test_every_caption_names_its_emotion_and_only_that() -> None:
    generator = np.random.default_rng(0)
    family = {word: emotion for emotion, words in EMOTION_WORDS.items() for word in words}
    for facts in all_traits():
        words = caption(facts, generator).lower().replace(",", " ").replace(".", " ").replace(";", " ").split()
        assert [family[word] for word in words if word in family] == [facts.emotion]


def test_no_article_precedes_an_emotion() -> None:
    generator = np.random.default_rng(0)
    names = {word for words in EMOTION_WORDS.values() for word in words}
    for facts in all_traits():
        words = [word.strip(".,;") for word in caption(facts, generator).split()]
        assert not any(before in {"a", "an"} and word in names for before, word in itertools.pairwise(words))


def test_captions_are_read_back() -> None:
    generator = np.random.default_rng(0)
    for facts in all_traits():
        stated = parse(caption(facts, generator))
        assert stated is not None
        assert stated._asdict() == {name: value for name, value in vars(facts).items() if name != "is_strong"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A woman sounds angry",
        "angry. The feeling angry fearful strong angry",
        "A woman sounds angry, loudly; the pitch is high and stays even, and he hurries.",
        "A woman sounds angry, loudly; the pitch is slow and stays even, and she hurries.",
        "A woman sounds angry, loudly; the pitch is high and stays even, and she hurries. She hurries.",
    ],
)
def test_what_is_no_caption_is_not_read(text: str) -> None:
    assert parse(text) is None


def test_text_without_emotion_has_none() -> None:
    assert emotion_of("The pitch is high.") is None


@pytest.mark.parametrize(("pitch_hz", "level"), [(100.0, 0), (219.0, 0), (230.0, 1), (300.0, 2)])
def test_pitch_level_follows_the_thresholds_of_the_sex(pitch_hz: float, level: int) -> None:
    clip = Clip(None, "sad", False, True, "", 2)  # type: ignore[arg-type]
    measured = VoiceMeasurement(pitch_hz, 8.0, -5.0, -38.0, 1.6, 0, 160)
    assert traits(clip, measured, LIMITS).pitch_level == level


def test_a_longer_clip_is_slower() -> None:
    clip = Clip(None, "sad", False, True, "", 2)  # type: ignore[arg-type]
    paces = [traits(clip, VoiceMeasurement(200, 8, -5, -38, s, 0, 1), LIMITS).pace_level for s in (1.0, 1.6, 2.5)]
    assert paces == [2, 1, 0]


def test_no_actor_is_in_two_splits() -> None:
    actors = [actor for actors in SPLIT_ACTORS.values() for actor in actors]
    assert sorted(actors) == list(range(1, 21))
    assert [split_of(actor) for actor in (16, 17, 19)] == ["train", "tune", "report"]


def test_every_caption_is_well_formed_and_a_broken_one_is_not() -> None:
    generator = np.random.default_rng(2)
    assert all(is_well_formed(caption(facts, generator)) for facts in all_traits())
    text = "A man sounds angry, loudly; the pitch is low and falls, and he talks slowly."
    assert is_well_formed(text)
    for broken in (text[:-1], text.replace("he talks", "she talks"), text + " The feeling angry fearful.", ""):
        assert not is_well_formed(broken)
