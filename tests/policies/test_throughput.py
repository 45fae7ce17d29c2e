"""The closed forms against the processes that they describe, played out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skydraft.policies.throughput import (
    BLOCK_LENGTHS,
    LEAST_RUN,
    MOST_RUN,
    Conditions,
    cloud_tokens_per_s,
    fitted_run_length,
    fitted_turns_run_length,
    free_running_tokens_per_s,
    stop_and_wait_tokens_per_s,
    turns_tokens_per_s,
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
    assert fitted_run_length(speed, replace(conditions, run_length=1.0)) == pytest.approx(run_length, rel=1e-3)
    speed = turns_tokens_per_s(conditions)
    assert fitted_turns_run_length(speed, conditions) == pytest.approx(run_length, rel=1e-3)


def test_speeds_that_the_model_does_not_know_give_the_longest_and_shortest_run() -> None:
    assert fitted_run_length(200.0, PHONE) == pytest.approx(MOST_RUN, rel=1e-3)
    assert fitted_run_length(20.0, PHONE) == pytest.approx(LEAST_RUN, rel=1e-3)


def test_in_turns_the_best_block_is_as_long_as_runs_and_round_trips_ask_for() -> None:
    for round_trip_s, run_length in ((0.0, 3.0), (0.1, 20.0)):
        conditions = replace(PHONE, run_length=run_length, round_trip_s=round_trip_s, node_s=0.002)
        by_block = [
            stop_and_wait_tokens_per_s(replace(conditions, verify_s=0.03 + 0.002 * length), length)
            for length in BLOCK_LENGTHS
        ]
        assert turns_tokens_per_s(conditions) == pytest.approx(max(by_block))


def test_what_judging_a_node_takes_bounds_free_running_however_fast_the_draft_is() -> None:
    dear = replace(PHONE, verify_s=0.08, node_s=0.025, draft_s=0.001, run_length=MOST_RUN)
    assert free_running_tokens_per_s(dear) < 1 / 0.025
