"""The closed forms against the processes that they describe, played out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skydraft.policies.throughput import (
    LEAST_RUN,
    MOST_RUN,
    Conditions,
    cloud_tokens_per_s,
    fitted_run_length,
    free_running_tokens_per_s,
    stop_and_wait_tokens_per_s,
)

PHONE = Conditions(draft_s=0.01, verify_s=0.03, step_s=0.03, round_trip_s=0.05, run_length=6.0)


def test_stop_and_wait_is_what_playing_it_out_gives() -> None:
    rng = np.random.default_rng(0)
    num_held = np.minimum(rng.geometric(1 / 6.0, 200_000) - 1, 5)
    cycle_s = 5 * 0.01 + 0.05 + 0.03
    assert stop_and_wait_tokens_per_s(PHONE, 5) == pytest.approx((num_held.mean() + 1) / cycle_s, rel=0.01)


def test_stop_and_wait_has_the_values_of_the_literature() -> None:
    """Acceptance 0.8 at its best length: 49, 28, 21 and 14 tokens a second at 0, 50, 100 and 200 ms."""
    for round_trip_s, expected in ((0.0, 49), (0.05, 28), (0.1, 21), (0.2, 14)):
        conditions = replace(PHONE, run_length=5.0, round_trip_s=round_trip_s)
        best = max(stop_and_wait_tokens_per_s(conditions, length) for length in range(1, 30))
        assert best == pytest.approx(expected, abs=0.6)


def test_free_running_is_what_playing_it_out_gives() -> None:
    """Each run: a pass a token while the device is behind, then a draft step a token."""
    rng = np.random.default_rng(0)
    runs = rng.exponential(6.0, 400_000)
    lag = (0.05 + 0.015) / 0.02
    times_s = 0.03 * np.minimum(runs, lag) + 0.01 * np.maximum(runs - lag, 0)
    assert free_running_tokens_per_s(PHONE) == pytest.approx(runs.sum() / times_s.sum(), rel=0.01)


@pytest.mark.parametrize("round_trip_s", [0.0, 0.05, 0.3, 10.0])
@pytest.mark.parametrize("run_length", [1.0, 2.0, 6.0, 100.0])
def test_free_running_lies_between_the_cloud_and_the_draft(round_trip_s: float, run_length: float) -> None:
    speed = free_running_tokens_per_s(replace(PHONE, round_trip_s=round_trip_s, run_length=run_length))
    assert cloud_tokens_per_s(PHONE) - 1e-9 <= speed <= 1 / PHONE.draft_s


def test_a_draft_that_is_slower_than_the_cloud_gains_nothing() -> None:
    assert free_running_tokens_per_s(replace(PHONE, draft_s=0.05)) == pytest.approx(cloud_tokens_per_s(PHONE))


@pytest.mark.parametrize("run_length", [1.5, 4.0, 20.0])
@pytest.mark.parametrize("round_trip_s", [0.01, 0.05, 0.2])
def test_the_run_length_is_found_again_from_the_speed(run_length: float, round_trip_s: float) -> None:
    conditions = replace(PHONE, run_length=run_length, round_trip_s=round_trip_s)
    speed = free_running_tokens_per_s(conditions)
    assert fitted_run_length(speed, replace(conditions, run_length=0.0)) == pytest.approx(run_length, rel=1e-6)


def test_speeds_that_the_model_does_not_know_give_the_longest_and_shortest_run() -> None:
    assert fitted_run_length(200.0, PHONE) == MOST_RUN
    assert fitted_run_length(20.0, PHONE) == LEAST_RUN
