from __future__ import annotations

import numpy as np
import pytest

from skydraft.core import Familiarity, LinearScore, Subspace, TensorSegment
from skydraft.engines.familiarity import CUT, NUM_SPREAD, distance, is_familiar, score, statistics

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


def knows(values: np.ndarray, offset: float = 0.0, limit: float = 1.0) -> Familiarity:
    """Scores its offset where all statistics are these, and is at no distance from them."""
    score_of = LinearScore(offset, tuple(values), (1.0,) * len(values), (0.0,) * len(values))
    spread = tuple(values[:NUM_SPREAD])
    return Familiarity(64, score_of, Subspace(spread, (1.0,) * NUM_SPREAD, ((1.0, *(0.0,) * (NUM_SPREAD - 1)),), limit))


def values_of(sound: TensorSegment) -> np.ndarray:
    return statistics(np.frombuffer(sound.data, np.int8).reshape(sound.shape).T / 64)


@pytest.mark.parametrize(
    ("offset", "limit", "expected"), [(0.0, 0.0, True), (-0.1, 0.0, False), (0.0, -0.1, False), (5.0, 5.0, True)]
)
def test_a_sound_is_familiar_where_its_score_is_not_below_zero_and_it_is_near(
    offset: float, limit: float, expected: bool
) -> None:
    sound = segment(mel())
    assert is_familiar(sound, knows(values_of(sound), offset, limit)) is expected


def test_a_score_is_linear_in_standardised_statistics_and_cut_far_outside() -> None:
    by = LinearScore(1.0, (2.0, 0.0), (3.0, 1.0), (1.0, 0.5))
    assert score(np.array([8.0, 4.0]), by) == pytest.approx(1 + 2 + 2)
    assert score(np.array([1e9, 0.0]), by) == 1 + CUT
    assert score(np.array([-1e9, 0.0]), by) == 1 - CUT


def test_what_lies_along_the_directions_is_no_distance() -> None:
    diagonal = (2**-0.5, 2**-0.5)
    subspace = Subspace((1.0, 1.0), (2.0, 2.0), (diagonal,), 0.0)
    assert distance(np.array([5.0, 5.0, 99.0]), subspace) == pytest.approx(0)
    assert distance(np.array([5.0, -3.0, 99.0]), subspace) == pytest.approx(4)  # standardised 2 and -2, mean square 4


def test_other_features_and_other_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="familiarity is of levelled_log_mel, and the features are log_mel"):
        is_familiar(segment(mel(), "log_mel"), knows(values_of(segment(mel()))))
    with pytest.raises(ValueError, match="a score of 1 statistics was given 520"):
        score(statistics(mel()), LinearScore(0.0, (0.0,), (1.0,), (1.0,)))
