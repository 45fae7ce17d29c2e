"""Running estimates of draft time, pass time, round trip and runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.core import PassTimes
from skydraft.policies.estimates import Estimates, RunningLine


@given(base=st.floats(0.001, 1), growth=st.floats(0, 0.1), seed=st.integers(0, 99))
def test_a_line_is_found_again(base: float, growth: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    line = RunningLine(0.5, 0.1)
    for count in rng.integers(1, 40, 300).tolist():
        line.observe(count, base * (1 + growth * (count - 1)))
    assert line.at(20) == pytest.approx(base * (1 + growth * 19), rel=0.03)
    assert line.slope == pytest.approx(base * growth, rel=0.2, abs=0.01 * base)


def test_where_few_counts_are_seen_a_line_is_nearly_flat() -> None:
    rng = np.random.default_rng(0)
    line = RunningLine(0.03, 0.001)
    for count, noise in zip(rng.integers(1, 4, 500).tolist(), rng.uniform(0.8, 1.25, 500).tolist(), strict=True):
        line.observe(count, 0.06 * noise)
    assert line.at(1) == pytest.approx(0.06, rel=0.1)
    assert line.slope < 0.06 / 100


def test_a_line_follows_a_cloud_that_becomes_slower() -> None:
    line = RunningLine(0.03, 0.0)
    for time_s in [0.03] * 100 + [0.1] * 60:
        line.observe(1, time_s)
    assert line.at(1) == pytest.approx(0.1, rel=0.2)


def test_the_round_trip_follows_a_link_that_changes() -> None:
    estimates = Estimates()
    for seconds in [0.02] * 20 + [0.2] * 2:
        estimates.observe_round_trip(seconds)
    assert estimates.round_trip_s == 0.2


def test_one_frozen_round_trip_or_pass_is_not_taken_for_the_pace() -> None:
    estimates = Estimates()
    for seconds in [0.02] * 20 + [5.0]:
        estimates.observe_round_trip(seconds)
        estimates.verify_s.observe(1, seconds)
    assert estimates.round_trip_s == 0.02
    assert estimates.verify_s.at(1) < 0.025


def test_passes_are_timed_from_answer_to_answer() -> None:
    estimates = Estimates()
    now_s = 10.0
    for num_positions in [1, 9, 17, 5] * 100:
        now_s += 0.06 + 0.001 * (num_positions - 1)
        estimates.observe_pass(now_s, num_positions, 2, is_drafted=True)
    assert estimates.verify_s.at(9) == pytest.approx(0.068, rel=0.02)
    assert estimates.speed.tokens_per_s == pytest.approx(2 / 0.067, rel=0.05)


def test_the_time_to_the_first_answer_is_not_taken_for_a_pass() -> None:
    estimates = Estimates()
    now_s = 0.0
    for _ in range(50):
        estimates.begin_passes()
        now_s += 2.0
        for _ in range(20):
            now_s += 0.05
            estimates.observe_pass(now_s, 1, 1, is_drafted=False)
    assert estimates.verify_s.at(1) == pytest.approx(0.05, rel=0.02)
    assert estimates.speed.tokens_per_s is None


def test_a_backlog_that_arrives_at_once_does_not_make_the_cloud_look_fast() -> None:
    estimates = Estimates()
    now_s = 0.0
    for _ in range(100):
        now_s += 0.02
        estimates.observe_pass(now_s, 1, 1, is_drafted=True)
    now_s += 5.0
    for _ in range(250):
        estimates.observe_pass(now_s, 1, 1, is_drafted=True)
    for _ in range(10):
        now_s += 0.02
        estimates.observe_pass(now_s, 1, 1, is_drafted=True)
    assert estimates.verify_s.at(1) == pytest.approx(0.02, rel=0.15)
    assert estimates.speed.tokens_per_s == pytest.approx(50, rel=0.35)


def test_a_pass_over_one_position_takes_some_time_however_steep_the_line() -> None:
    line = RunningLine(0.03, 0.0001)
    for count, seconds in [(30, 0.01), (90, 0.5)] * 40:
        line.observe(count, seconds)
    assert line.at(1) > 0


def test_a_round_is_a_round_trip_and_a_pass_but_for_the_first_which_may_wait_for_the_prompt() -> None:
    estimates = Estimates()
    estimates.observe_round_trip(0.1)
    estimates.begin_passes()
    for now_s, answered_s in [(0.0, 9.0), (10.0, 10.15), (11.0, 11.15)]:
        estimates.begin_round(now_s)
        estimates.end_round(answered_s, 1, 1)
    assert estimates.verify_s.at(1) == pytest.approx(0.05)


def test_an_answer_that_no_round_began_with_says_nothing_of_a_pass() -> None:
    estimates = Estimates()
    estimates.observe_round_trip(0.1)
    for now_s in (1.0, 2.0, 3.0):
        estimates.end_round(now_s, 1, 1)
    assert not estimates.verify_s.is_seen


def test_a_round_without_a_known_round_trip_says_nothing_of_a_pass() -> None:
    estimates = Estimates()
    for now_s in (1.0, 2.0, 3.0):
        estimates.begin_round(now_s)
        estimates.end_round(now_s + 0.5, 1, 1)
    assert not estimates.verify_s.is_seen


def test_what_was_seen_afresh_is_believed_at_once() -> None:
    estimates = Estimates()
    for _ in range(100):
        estimates.verify_s.observe(1, 0.9)
    estimates.observe_afresh(0.005)
    assert estimates.verify_s.at(1) == pytest.approx(0.005)


def test_what_was_told_is_believed_until_something_is_seen_and_its_slope_for_longer() -> None:
    line = RunningLine(0.03, 0.0001)
    line.tell(PassTimes(0.06, 0.05))
    assert line.at(1) == 0.06
    assert line.at(5) == pytest.approx(0.26)
    for _ in range(20):
        line.observe(1, 0.03)
    assert line.at(1) == pytest.approx(0.03)
    assert line.at(5) == pytest.approx(0.13)
    line.tell(PassTimes(0.06, 0.05))
    assert line.at(1) == pytest.approx(0.03)


def test_a_near_cloud_is_held_up_by_as_much_as_its_passes_are_longer_than_it_said() -> None:
    estimates = Estimates(is_near=True)
    estimates.verify_s.tell(PassTimes(0.03, 0.01))
    now_s = 0.0
    for num_positions in [1, 3, 5] * 10:
        now_s += 2 * (0.03 + 0.01 * (num_positions - 1))
        estimates.observe_pass(now_s, num_positions, 1, is_drafted=True)
    assert estimates.contention == pytest.approx(2, rel=0.02)
    assert estimates.verify_s.at(1) == 0.03
    for _ in range(30):
        estimates.observe_draft_step(1, 0.02, is_beside=True)
    assert estimates.draft_s.at(1) == pytest.approx(0.02)  # nothing else was known of it
    estimates.draft_s.tell(PassTimes(0.01, 0.0))
    before = estimates.draft_s.at(1)
    estimates.observe_draft_step(1, 0.5, is_beside=True)
    assert estimates.draft_s.at(1) == before
    estimates.observe_draft_step(1, 0.01, is_beside=False)
    assert estimates.draft_s.at(1) < before


def test_a_freeze_is_not_taken_for_contention() -> None:
    estimates = Estimates(is_near=True)
    estimates.verify_s.tell(PassTimes(0.03, 0.0))
    now_s = 0.0
    for pause_s in [0.0] * 30 + [5.0] + [0.0] * 30:
        now_s += 0.03 + pause_s
        estimates.observe_pass(now_s, 1, 1, is_drafted=True)
        assert estimates.contention == pytest.approx(1)


def test_the_speed_in_rounds_counts_all_of_a_round() -> None:
    estimates = Estimates()
    estimates.observe_round_trip(0.05)
    for now_s in np.arange(1.0, 8.0, 0.5).tolist():
        estimates.begin_round(now_s)
        estimates.end_round(now_s + 0.1, 4, 3)
    assert estimates.speed.tokens_per_s == pytest.approx(6)
    estimates.begin_way()
    assert estimates.speed.tokens_per_s is None
