from __future__ import annotations

import pytest

from skydraft.tasks.cues import Cue
from skydraft.tasks.recording_summary import main_emotion, summarise


def cues(*stretches: tuple[float, str | None]) -> list[Cue]:
    """Captions one after the other, each so many seconds long; `-` is one without speech."""
    made, start_s = [], 0.0
    for length_s, emotion in stretches:
        has_speech = emotion != "-"
        made.append(Cue(start_s, start_s + length_s, "", has_speech, emotion if has_speech else None))
        start_s += length_s
    return made


@pytest.mark.parametrize(
    ("made", "summary"),
    [
        (cues((130, "calm"), (21, "angry"), (200, "calm")), "mostly calm, angry from 02:10 to 02:31"),
        (cues((5, "sad"), (5, None), (5, "-"), (5, "sad")), "sad throughout"),
        (cues((97, "sad"), (3, "happy")), "sad throughout"),
        (cues((8, "-"), (8, "-")), "no speech"),
        ([], "no speech"),
        (cues((8, "-"), (8, None)), "no emotion was named"),
        (
            cues((4, "calm"), (3, "angry"), (2, "sad"), (1, "happy")),
            "changing: calm 40% of the time, angry 30% of the time, sad 20% of the time",
        ),
        (
            cues((50, "calm"), (4, "sad"), (9, "calm"), (3, "angry"), (9, "calm"), (2, "sad"), (9, "calm"), (5, "sad")),
            "mostly calm, sad from 00:50 to 00:54, angry from 01:03 to 01:06, sad from 01:26 to 01:31, "
            "and 1 shorter stretch of others",
        ),
    ],
)
def test_a_recording_is_summed_up(made: list[Cue], summary: str) -> None:
    assert summarise(made) == summary


def test_what_is_between_captions_of_one_emotion_belongs_to_the_stretch() -> None:
    made = cues((60, "calm"), (5, "angry"), (3, "-"), (4, None), (5, "angry"))
    assert summarise(made) == "mostly calm, angry from 01:00 to 01:17"


def test_two_shorter_stretches_are_counted() -> None:
    made = cues((100, "calm"), *((3.0, "sad"), (5.0, "calm")) * 5)
    assert summarise(made).endswith(", and 2 shorter stretches of others")


def test_the_main_emotion_is_the_longest() -> None:
    assert main_emotion(cues((5, "calm"), (6, "sad"), (3, "calm"), (9, "-"))) == "calm"
    assert main_emotion(cues((5, None))) is None
