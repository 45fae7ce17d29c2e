from __future__ import annotations

import numpy as np
import pytest

from skydraft.audio.voice import measure, num_syllables, track

RATE_HZ = 16_000


def tone(pitch_hz: float | np.ndarray, duration_s: float = 1.0, amplitude: float = 0.1) -> np.ndarray:
    num_samples = int(duration_s * RATE_HZ)
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(pitch_hz, num_samples)) / RATE_HZ
    return (amplitude * (np.sin(phase) + 0.5 * np.sin(2 * phase))).astype(np.float32)


@pytest.mark.parametrize("pitch_hz", [90.0, 120.0, 200.0, 330.0, 480.0])
def test_a_steady_tone_measures_its_pitch(pitch_hz: float) -> None:
    measured = measure(tone(pitch_hz))
    assert measured.pitch_hz == pytest.approx(pitch_hz, rel=0.01)
    assert measured.pitch_range_semitones < 0.5


def test_a_falling_tone_falls() -> None:
    assert measure(tone(np.geomspace(240, 160, RATE_HZ))).pitch_change_semitones < -3


def test_ten_times_the_amplitude_is_20_db_louder() -> None:
    quiet, loud = measure(tone(200, amplitude=0.02)), measure(tone(200, amplitude=0.2))
    assert loud.loudness_db - quiet.loudness_db == pytest.approx(20, abs=0.1)


def test_silence_around_speech_is_not_active() -> None:
    silence = np.zeros(RATE_HZ, np.float32)
    assert measure(np.concatenate([silence, tone(200, 1.5), silence])).active_s == pytest.approx(1.5, abs=0.1)


def test_noise_is_unvoiced() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32) * 0.1
    assert (track(noise).pitch_hz > 0).mean() < 0.1


def test_silence_measures_no_pitch() -> None:
    assert measure(np.zeros(RATE_HZ, np.float32)).pitch_hz == 0


@pytest.mark.parametrize("num_bursts", [1, 4, 7])
def test_syllables_are_peaks_with_a_dip_between(num_bursts: int) -> None:
    burst = tone(200, 0.15) * np.hanning(2400).astype(np.float32)
    assert num_syllables(track(np.tile(np.pad(burst, 400), num_bursts))) == num_bursts


def test_noise_has_no_syllables() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32) * 0.1
    assert num_syllables(track(noise)) <= 2
