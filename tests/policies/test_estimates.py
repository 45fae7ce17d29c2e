"""Running estimates of draft time, pass time, round trip and runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.policies.estimates import Estimates, RunningLine


@given(base=st.floats(0.001, 1), slope=st.floats(0, 0.01), seed=st.integers(0, 99))
def test_a_line_is_found_again(base: float, slope: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    line = RunningLine(0.5, 0.1)
    for count in rng.integers(1, 40, 300).tolist():
        line.observe(count, base + slope * (count - 1))
    assert line.at(1) == pytest.approx(base, rel=0.02, abs=1e-4)
    assert line.at(33) == pytest.approx(base + 32 * slope, rel=0.02, abs=1e-4)


def test_a_line_keeps_its_slope_where_only_one_count_is_seen() -> None:
    line = RunningLine(0.03, 0.001)
    for _ in range(500):
        line.observe(1, 0.06)
    assert line.at(1) == pytest.approx(0.06, rel=0.01)
    assert 0 <= line.slope <= 0.01


def test_a_line_follows_a_cloud_that_becomes_slower() -> None:
    line = RunningLine(0.03, 0.0)
    for time_s in [0.03] * 100 + [0.1] * 60:
        line.observe(1, time_s)
    assert line.at(1) == pytest.approx(0.1, rel=0.2)


def test_the_round_trip_follows_a_link_that_changes() -> None:
    estimates = Estimates()
    for seconds in [0.02] * 20 + [0.2] * 20:
        estimates.observe_round_trip(seconds)
    assert estimates.round_trip_s == pytest.approx(0.2, rel=0.1)
    assert 0 < estimates.jitter_s < 0.1


def test_a_run_ends_at_each_token_that_was_not_guessed() -> None:
    estimates = Estimates()
    for _ in range(400):
        estimates.observe_text(3, 3)
        estimates.observe_text(2, 1)  # the fifth was not guessed
    assert estimates.run_length == pytest.approx(5.0, rel=0.01)


def test_tokens_that_the_cloud_wrote_behind_a_miss_begin_the_next_run() -> None:
    estimates = Estimates()
    for _ in range(400):
        estimates.observe_text(4, 1)
    assert estimates.run_length == pytest.approx(4.0, rel=0.01)
