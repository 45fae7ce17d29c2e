"""What a device makes of a voice by itself: whether its model knows such voices, and how often its words are right."""

from __future__ import annotations

import dataclasses

from skydraft.audio.samples import Samples
from skydraft.audio.voice import num_syllables, summarise, track
from skydraft.config import DeviceSettings
from skydraft.core import Calibration, TensorSegment
from skydraft.edge.report import Report, Unasked, unwritten
from skydraft.engines.familiarity import is_familiar
from skydraft.tasks.emotions import EmotionWord
from skydraft.tasks.measured_caption import VoiceFacts, measured_caption


def knows(calibration: Calibration | None, features: TensorSegment) -> bool | None:
    """Whether the draft model knows such voices; None: nobody has measured what it knows."""
    if calibration is None or calibration.familiarity is None:
        return None
    return is_familiar(features, calibration.familiarity)


def confidence(calibration: Calibration | None, word: EmotionWord | None) -> float | None:
    """How often such a word is right, 0 to 1; None: no emotion is named, or nobody can say."""
    if word is None or calibration is None or calibration.confidence is None:
        return None
    return calibration.confidence.of(word.probabilities[word.emotion], word.is_clouds)


def measured(samples: Samples, settings: DeviceSettings) -> Report:
    """The report of a caption that keeps to what was measured, of which no model is asked and nothing leaves.

    Args:
        samples: float32 [num_samples], 16 kHz.
    """
    followed = track(samples)
    voice = summarise(followed)
    facts = VoiceFacts(
        voice.pitch_hz or None,
        voice.pitch_change_semitones,
        voice.pitch_range_semitones,
        voice.loudness_db,
        num_syllables(followed) / voice.active_s,
    )
    unasked = None if settings.keeps_to_itself else Unasked.DEAF if settings.captions_alone else Unasked.STRANGE
    report = unwritten(measured_caption(facts), settings.mode, settings.share)
    return dataclasses.replace(report, unasked=unasked)
