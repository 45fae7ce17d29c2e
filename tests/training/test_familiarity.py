from __future__ import annotations

import numpy as np
import pytest

from skydraft.core import Familiarity
from skydraft.engines.familiarity import NUM_SPREAD, distance, score
from training.familiarity import (
    NUM_DIRECTIONS,
    STRANGE,
    SURE_SHARE,
    fit_score,
    fit_subspace,
    speech_of,
    with_limits,
)

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
    fitted = fit_score(known, strange)
    assert np.mean([score(values, fitted) > 0 for values in known]) > 0.95
    assert np.mean([score(values, fitted) < 0 for values in strange]) > 0.95
    assert np.abs(fitted.weights).argmax() == 3


def test_what_is_known_varies_along_the_fitted_directions() -> None:
    generator = np.random.default_rng(0)
    sources, mixing = generator.normal(0, 1, (300, NUM_DIRECTIONS)), generator.normal(0, 1, (NUM_DIRECTIONS, 400))
    known = sources @ mixing
    subspace = fit_subspace(known)
    assert len(subspace.directions) == NUM_DIRECTIONS
    assert len(subspace.centre) == NUM_SPREAD
    assert max(distance(values, subspace) for values in known) < 1e-3
    assert distance(known[0] + generator.normal(0, 10, 400), subspace) > 1


def test_score_and_subspace_each_let_most_of_what_is_known_pass() -> None:
    known = np.random.default_rng(0).normal(0, 1, (500, 400))
    found = Familiarity(64, fit_score(known, known + 0.5), fit_subspace(known))
    limited = with_limits(found, known)
    assert np.mean([score(values, limited.score) >= 0 for values in known]) == pytest.approx(SURE_SHARE)
    near = [distance(values, limited.subspace) <= limited.subspace.limit for values in known]
    assert np.mean(near) == pytest.approx(SURE_SHARE)
