from __future__ import annotations

import pytest

from skydraft.tasks.emotions import emotion_of
from skydraft.tasks.measured_caption import VoiceFacts, measured_caption

FALLING = VoiceFacts(213.0, -3.1, 9.0, -24.4, 3.8)


def test_a_caption_says_what_was_measured_and_names_no_emotion() -> None:
    caption = measured_caption(FALLING)
    assert caption == (
        "Not sure of the emotion. The pitch is about 210 Hz and falls, the level -24 dB of full scale, and the pace "
        "about 4 syllables a second."
    )
    assert emotion_of(caption) is None


@pytest.mark.parametrize(
    ("change", "pitch_range", "words"), [(-2, 0, "falls"), (2, 9, "rises"), (1.9, 6, "swings"), (-1.9, 5, "stays even")]
)
def test_the_pitch_falls_rises_swings_or_stays_even(change: float, pitch_range: float, words: str) -> None:
    voice = FALLING._replace(pitch_change_semitones=change, pitch_range_semitones=pitch_range)
    assert f"210 Hz and {words}, the level" in measured_caption(voice)


def test_a_whisper_has_no_pitch() -> None:
    assert "There is no clear pitch, the level -24 dB" in measured_caption(FALLING._replace(pitch_hz=None))
