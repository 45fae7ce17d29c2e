from __future__ import annotations

import numpy as np
import pytest

from skydraft.engines.familiarity import score
from training.familiarity import STRANGE, fit, speech_of

RATE_HZ = 16_000


def voice() -> np.ndarray:
    """A second of a falling tone between two half seconds of silence."""
    phase = 2 * np.pi * np.cumsum(np.linspace(300, 100, RATE_HZ)) / RATE_HZ
    sound = 0.3 * np.sin(phase)
    return np.pad(sound, RATE_HZ // 2).astype(np.float32)


def test_speech_is_without_the_silence_at_both_ends() -> None:
    assert len(speech_of(voice())) == pytest.approx(RATE_HZ, abs=1000)


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_made_strange_is_another_sound_of_some_length(kind: str) -> None:
    samples = voice()
    strange = STRANGE[kind](samples, np.random.default_rng(0))
    assert RATE_HZ // 4 < len(strange) < 2 * len(samples)
    assert len(strange) != len(samples) or (strange != samples).any()


def test_a_fitted_score_is_positive_for_what_is_known_and_negative_for_the_strange() -> None:
    generator = np.random.default_rng(0)
    known, strange = generator.normal(5, 1, (200, 10)), generator.normal(5, 1, (50, 10))
    strange[:, 3] += 4
    fitted = fit(known, strange, 64)
    assert np.mean([score(values, fitted) > 0 for values in known]) > 0.95
    assert np.mean([score(values, fitted) < 0 for values in strange]) > 0.95
    assert np.abs(fitted.weights).argmax() == 3
    assert fitted.steps_per_unit == 64
