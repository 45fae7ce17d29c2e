from __future__ import annotations

import pytest

from skydraft.tasks.cues import Cue
from skydraft.tasks.recording_summary import is_sure, main_confidence, main_emotion, summarise


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


def test_how_often_the_words_are_right_stands_behind_them() -> None:
    made = [Cue(0, 3, "", emotion="sad", confidence=0.9), Cue(3, 9, "", emotion="sad", confidence=0.6)]
    assert summarise(made) == "sad throughout; right about 7 times in 10"
    assert summarise([made[0]._replace(confidence=0.99)]) == "sad throughout; right about 9 times in 10"
    assert summarise([made[0]._replace(confidence=0.01)]) == "sad throughout; right about once in 10"


def test_where_the_voice_is_not_known_is_said() -> None:
    unknown = Cue(6, 8, "Not sure.", is_sure=False)
    made = [Cue(0, 6, "", emotion="sad", is_sure=True), unknown, Cue(8, 20, "", has_speech=False)]
    assert summarise(made) == "sad throughout; the voice is unlike those that the device knows 25% of the time"
    assert summarise([unknown]) == "no emotion was named; the voice is unlike those that the device knows"


def test_confidence_is_that_of_the_main_emotion() -> None:
    made = [Cue(0, 6, "", emotion="sad", confidence=0.5), Cue(6, 8, "", emotion="calm", confidence=0.9)]
    assert main_confidence(made) == 0.5
    assert main_confidence([*made, Cue(8, 10, "", emotion="sad", confidence=0.9)]) == pytest.approx(0.6)
    assert main_confidence(cues((5, "sad"))) is None


def test_a_recording_is_known_where_all_that_is_spoken_is() -> None:
    known, unknown = Cue(0, 1, "", is_sure=True), Cue(0, 1, "", is_sure=False)
    assert is_sure([known, Cue(1, 2, "", has_speech=False)]) is True
    assert is_sure([known, unknown]) is False
    assert is_sure([Cue(0, 1, "")]) is None
