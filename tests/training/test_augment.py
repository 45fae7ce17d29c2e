from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from training import augment
from training.conditions import CONDITIONS, PLAIN

Change = Callable[[np.ndarray], np.ndarray]


def tones() -> np.ndarray:
    """A second of 200 Hz, 1 kHz and 5 kHz, rising and falling in level."""
    time_s = np.arange(16_000) / 16_000
    waves = sum(np.sin(2 * np.pi * hz * time_s) for hz in (200, 1000, 5000))
    shaped: np.ndarray = (0.1 * waves * np.hanning(16_000)).astype(np.float32)
    return shaped


def power_db(samples: np.ndarray, hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    return float(10 * np.log10(spectrum[hz - 5 : hz + 6].sum() + 1e-12))


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_keeps_length_and_place(name: str) -> None:
    samples = tones()
    changed = CONDITIONS[name](samples, np.random.default_rng(0))
    assert changed.dtype == np.float32
    assert changed.shape == samples.shape
    assert np.abs(changed).max() <= 1.5
    envelope = [np.abs(x).reshape(-1, 160).mean(axis=1) for x in (samples, changed)]
    lags = np.correlate(envelope[1] - envelope[1].mean(), envelope[0] - envelope[0].mean(), "full")
    assert abs(int(lags.argmax()) - 99) <= 5  # hundredths of a second


def test_plain_is_the_recording_itself() -> None:
    assert np.array_equal(CONDITIONS[PLAIN](tones(), np.random.default_rng(0)), tones())


def test_a_telephone_passes_neither_200_nor_5000_hz() -> None:
    before, after = tones(), augment.telephone(tones())
    assert power_db(after, 1000) == pytest.approx(power_db(before, 1000), abs=1.0)
    assert power_db(after, 200) < power_db(before, 200) - 8
    assert power_db(after, 5000) < power_db(before, 5000) - 30


@pytest.mark.parametrize("codec", [augment.opus, augment.aac])
def test_codecs_keep_what_a_voice_has(codec: Change) -> None:
    before, after = tones(), codec(tones())
    assert not np.array_equal(before, after)
    for hz in (200, 1000):
        assert power_db(after, hz) == pytest.approx(power_db(before, hz), abs=3.0)


def test_gain_clips_at_full_scale_and_rounds_to_16_bits() -> None:
    louder, softer = augment.add_gain(tones(), 20), augment.add_gain(tones(), -20)
    assert np.abs(louder).max() == 1
    assert softer == pytest.approx(tones() / 10, abs=1 / 65_000)
    assert len(np.unique(softer)) < len(np.unique(tones()))
