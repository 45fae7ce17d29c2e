"""What a device makes of voices that its model knows, and of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from skydraft.audio.read import Clip, read_clip
from skydraft.config import DeviceSettings
from skydraft.core import EmotionConfidence, Mode, ShareLevel, TextPiece
from skydraft.edge import ears
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.device import Device
from skydraft.edge.report import Unasked
from skydraft.engines.load import load_calibration
from skydraft.tasks.emotions import EmotionWord
from skydraft.tasks.measured_caption import NOT_SURE

ALONE: dict[str, Any] = {"mode": Mode.EDGE, "share": ShareLevel.NONE, "num_threads": 1}
NOWHERE = "ws://127.0.0.1:9"


def backwards(clip: Clip) -> Clip:
    """The same voice and room, and nothing that was ever said."""
    return Clip(clip.name, clip.samples[::-1].copy(), clip.notes)


async def caption(clip: Clip, shown: list[TextPiece] | None = None, **settings: Any) -> CaptionedWindow:
    with Device.load(DeviceSettings(**settings)) as device:
        (window,) = await device.caption(clip, (shown if shown is not None else []).extend)
    return window


@pytest.fixture
def clip(unseen_clips: list[Path]) -> Clip:
    return read_clip(unseen_clips[3])


async def test_of_a_voice_that_it_knows_it_says_how_often_it_is_right(clip: Clip) -> None:
    window = await caption(clip, **ALONE)
    assert window.is_sure is True
    word = window.report.emotion_word
    assert word is not None
    assert word.emotion == window.cue.emotion
    assert sum(word.probabilities.values()) == pytest.approx(1)
    assert not word.is_clouds
    calibration = load_calibration("embedded", "draft")
    assert window.confidence == ears.confidence(calibration, word)
    assert 0.1 < (window.confidence or 0) < 0.99


async def test_of_another_it_says_what_it_measured_and_names_no_emotion(clip: Clip) -> None:
    shown: list[TextPiece] = []
    window = await caption(backwards(clip), shown, **ALONE)
    assert window.is_sure is False
    assert (window.confidence, window.cue.emotion, window.report.emotion_word) == (None, None, None)
    assert window.report.text.startswith(NOT_SURE)
    assert "Hz" in window.report.text
    assert tuple(shown) == window.report.pieces
    assert not window.report.tokens
    assert window.report.unasked is None


async def test_told_to_it_names_one_all_the_same_and_says_that_it_is_not_sure(clip: Clip) -> None:
    window = await caption(backwards(clip), any_voice=True, **ALONE)
    assert window.cue.emotion is not None
    assert window.is_sure is False
    assert window.confidence is None


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, Unasked.DEAF),
        ({"share": ShareLevel.FEATURES}, Unasked.STRANGE),
        ({"preset": "ugsd"}, Unasked.STRANGE),
        ({"share": ShareLevel.FEATURES, "evidence": "never"}, Unasked.DEAF),
    ],
)
async def test_of_another_nothing_leaves_unless_the_whole_caption_is_to_be_the_clouds(
    clip: Clip, settings: dict[str, Any], why: Unasked
) -> None:
    """The cloud is nowhere: whatever would leave for it would be an error."""
    window = await caption(backwards(clip), cloud=NOWHERE, num_threads=1, **settings)
    assert window.report.text.startswith(NOT_SURE)
    assert window.report.unasked is why
    assert not window.report.disclosure.up


def test_confidence_needs_a_word_and_a_measurement() -> None:
    word = EmotionWord("sad", is_clouds=False, probabilities={"sad": 0.7, "calm": 0.3})
    calibration = load_calibration("embedded", "draft")
    assert calibration is not None
    plain = structs.replace(calibration, confidence=EmotionConfidence((0.0, 1.0), (1.0, 0.0)))
    assert ears.confidence(plain, word) == pytest.approx(0.7)
    assert ears.confidence(plain, word._replace(is_clouds=True)) == pytest.approx(1 / (1 + np.exp(-1)))
    assert ears.confidence(plain, None) is None
    assert ears.confidence(None, word) is None
    assert ears.confidence(structs.replace(plain, confidence=None), word) is None
