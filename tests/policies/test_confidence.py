"""The draft's own confidence, learnt from what the text turns out to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.policies.confidence import LEAST_MISS, MOST_MISS, Confidence

scores = st.lists(st.floats(-30, 5), min_size=1, max_size=6).map(lambda row: sorted(row, reverse=True))


@given(scores=scores)
def test_probabilities_fall_with_the_rank_and_leave_room_for_a_miss(scores: list[float]) -> None:
    probs = np.exp(Confidence(miss=0.1).log_probabilities(scores)).tolist()
    assert probs == sorted(probs, reverse=True)
    assert sum(probs) == pytest.approx(0.9)


@given(scores=scores, ranks=st.lists(st.none() | st.just(0), max_size=50))
def test_what_it_learns_stays_within_bounds(scores: list[float], ranks: list[int | None]) -> None:
    confidence = Confidence()
    for rank in ranks:
        confidence.observe(scores, rank)
    assert LEAST_MISS <= confidence.miss <= MOST_MISS
    assert 0.1 <= confidence.sharpness <= 10


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
def test_it_finds_the_sharpness_that_a_pair_of_models_has(truth: float) -> None:
    rng = np.random.default_rng(1)
    confidence = Confidence(learning_rate=0.03)
    found = []
    for step in range(4000):
        scores = sorted((2 * rng.standard_normal(4)).tolist(), reverse=True)
        weights = np.exp(truth * np.array(scores))
        confidence.observe(scores, int(rng.choice(4, p=weights / weights.sum())))
        if step > 2000:
            found.append(confidence.sharpness)
    assert np.mean(found) == pytest.approx(truth, rel=0.15)


def test_it_finds_how_often_no_guess_is_right() -> None:
    confidence = Confidence()
    for step in range(1000):
        confidence.observe([0.0, -1.0], None if step % 4 == 0 else 0)
    assert confidence.miss == pytest.approx(0.25, abs=0.02)
