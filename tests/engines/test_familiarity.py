from __future__ import annotations

import numpy as np
import pytest

from skydraft.core import Familiarity, TensorSegment
from skydraft.engines.familiarity import CUT, is_familiar, score, statistics

NUM_BINS = 80


def mel(num_frames: int = 200, seed: int = 0) -> np.ndarray:
    """Levelled log-mel of a sound that swells and fades, with quiet before and after: float64 [num_frames, 80]."""
    generator = np.random.default_rng(seed)
    smooth = np.cumsum(generator.normal(0, 0.02, (num_frames, NUM_BINS)), axis=0)
    return np.concatenate([np.full((30, NUM_BINS), -1.5), smooth, np.full((20, NUM_BINS), -1.5)])


def segment(values: np.ndarray, name: str = "levelled_log_mel") -> TensorSegment:
    steps = np.rint(values * 64).astype(np.int8)
    return TensorSegment(name, "int8", (steps.shape[1], len(steps)), np.ascontiguousarray(steps.T).tobytes())


def test_statistics_are_as_many_for_every_sound() -> None:
    lengths = {len(statistics(mel(num_frames))) for num_frames in (3, 7, 50, 800)}
    lengths.add(len(statistics(mel()[:3])))
    assert lengths == {520}
    assert np.isfinite(statistics(np.zeros((3, NUM_BINS)))).all()


def test_quiet_around_the_speech_counts_for_nothing() -> None:
    longer = np.concatenate([np.full((100, NUM_BINS), -1.5), mel(), np.full((100, NUM_BINS), -1.5)])
    assert statistics(longer) == pytest.approx(statistics(mel()))


def test_backwards_other_statistics_come_out() -> None:
    forwards, backwards = statistics(mel()), statistics(mel()[::-1])
    is_other = ~np.isclose(forwards, backwards)
    assert is_other.any()
    assert not is_other[:40].any()  # means and deviations of the cepstra


def test_a_sound_is_familiar_where_the_score_of_its_statistics_is_not_below_zero() -> None:
    sound = segment(mel())
    values = statistics(np.frombuffer(sound.data, np.int8).reshape(sound.shape).T / 64)
    for offset, expected in ((-2.0, True), (-2.1, False)):
        weights = np.zeros(len(values))
        weights[0] = 2.0
        centre, scale = values - 3.0, np.full(len(values), 3.0)
        known = Familiarity(64, offset, tuple(centre), tuple(scale), tuple(weights))
        assert score(values, known) == pytest.approx(offset + 2)
        assert is_familiar(sound, known) is expected


def test_a_statistic_far_outside_is_cut() -> None:
    known = Familiarity(64, 0.0, (0.0,), (1.0,), (1.0,))
    assert score(np.array([1e9]), known) == CUT
    assert score(np.array([-1e9]), known) == -CUT


def test_other_features_and_other_statistics_are_refused() -> None:
    known = Familiarity(64, 0.0, (0.0,), (1.0,), (1.0,))
    with pytest.raises(ValueError, match="familiarity is of levelled_log_mel, and the features are log_mel"):
        is_familiar(segment(mel(), "log_mel"), known)
    with pytest.raises(ValueError, match="a familiarity of 1 statistics was given 520"):
        is_familiar(segment(mel()), known)
