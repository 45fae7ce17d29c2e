"""The caption of a voice that the models do not know: what was measured of it, and no emotion."""

from __future__ import annotations

from typing import NamedTuple

NOT_SURE = "Not sure of the emotion."
MOVES_SEMITONES = 2.0  # between the first third and the last: less is no rise and no fall
SWINGS_SEMITONES = 6.0  # between the 10th and the 90th percentile: less is even


class VoiceFacts(NamedTuple):
    """A voice in numbers.

    pitch_hz: the median; None: there is none, as in a whisper.
    pitch_change_semitones: from the first third to the last. pitch_range_semitones: 10th to 90th percentile.
    level_db: of the speech, of full scale.
    syllables_per_s: counted by their peaks in level.
    """

    pitch_hz: float | None
    pitch_change_semitones: float
    pitch_range_semitones: float
    level_db: float
    syllables_per_s: float


def measured_caption(voice: VoiceFacts) -> str:
    """Say what was measured, for example "Not sure of the emotion. The pitch is about 210 Hz and falls, ..."."""
    pitch = "there is no clear pitch"
    if voice.pitch_hz is not None:
        pitch = f"the pitch is about {_rounded(voice.pitch_hz, 10)} Hz and {_movement(voice)}"
    return (
        f"{NOT_SURE} {pitch[0].upper()}{pitch[1:]}, the level {_rounded(voice.level_db, 1)} dB of full scale, and the "
        f"pace about {voice.syllables_per_s:.0f} syllables a second."
    )


def _movement(voice: VoiceFacts) -> str:
    if abs(voice.pitch_change_semitones) >= MOVES_SEMITONES:
        return "falls" if voice.pitch_change_semitones < 0 else "rises"
    return "swings" if voice.pitch_range_semitones >= SWINGS_SEMITONES else "stays even"


def _rounded(value: float, step: int) -> int:
    return round(value / step) * step
