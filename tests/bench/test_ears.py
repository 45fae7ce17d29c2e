"""The sounds of bench.ears and what it does to recordings."""

from __future__ import annotations

import numpy as np
import pytest

from bench.ears import at_gain, telephone
from bench.sounds import KINDS, NUM_SAMPLES, PEAK, sound
from tests.audio.sounds import tone


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_a_sound(kind: str) -> None:
    first, again, other = sound(kind, 1), sound(kind, 1), sound(kind, 2)
    assert first.dtype == np.float32
    assert first.shape == (NUM_SAMPLES,)
    assert np.isfinite(first).all()
    assert (first == again).all()
    assert (first != other).any()
    assert np.abs(first).max() == pytest.approx(PEAK)


def test_a_telephone_lets_the_speech_band_pass_and_little_else() -> None:
    def level(pitch_hz: float) -> float:
        return float(np.abs(telephone(tone(pitch_hz=pitch_hz))[4_000:12_000]).max())

    assert level(1_000) == pytest.approx(0.5, abs=0.05)
    assert level(100) < 0.02
    assert level(5_000) < 0.02


def test_gain_clips_what_is_too_loud_and_rounds_what_is_soft() -> None:
    assert np.abs(at_gain(tone(), 20)).max() == 1
    soft = at_gain(tone(), -20)
    assert np.abs(soft).max() == pytest.approx(0.05, abs=2**-15)
    assert (soft * 32768 == np.round(soft * 32768)).all()
