"""The planner chooses by what was measured, and with hysteresis."""

from __future__ import annotations

from functools import partial

from skydraft.core import Objective
from skydraft.policies.planner import Planner
from skydraft.policies.throughput import Conditions, free_running_tokens_per_s
from skydraft.policies.way import CLOUD, SURE, TREE, Way
from tests.effort import effort_of


def measured(planner: Planner, draft_s: float, step_s: float, round_trip_s: float, run_length: float) -> Planner:
    estimates = planner.estimates
    for count in (1, 2, 8, 9) * 30:
        estimates.draft_s.observe(count, draft_s)
        estimates.verify_s.observe(count, step_s)
    estimates.round_trip_s = round_trip_s
    conditions = Conditions(draft_s, step_s, step_s, round_trip_s, run_length)
    for _ in range(100):
        estimates.observe_speed(free_running_tokens_per_s(conditions))
    return planner


def way_after(planner: Planner, length: int, num_positions: int | None = None) -> Way:
    return planner.review(length, num_positions or 2 * length, length / 30)


def test_it_drafts_before_anything_is_known() -> None:
    planner = Planner()
    assert planner.begin().width > 0
    assert way_after(planner, 8).width > 0


def test_a_slow_draft_is_not_given_up_before_the_cloud_was_timed() -> None:
    planner = Planner()
    planner.begin()
    for _ in range(20):
        planner.estimates.draft_s.observe(8, 0.5)
    assert way_after(planner, 16).width > 0


def test_a_draft_slower_than_the_cloud_is_given_up_and_tried_again() -> None:
    planner = measured(Planner(), draft_s=0.05, step_s=0.03, round_trip_s=0.02, run_length=5)
    planner.begin()
    assert way_after(planner, 8) is CLOUD
    assert way_after(planner, 40) is CLOUD
    assert way_after(planner, 8 + 64).width > 0
    assert way_after(planner, 8 + 64 + 8) is CLOUD


def test_a_link_that_becomes_fast_is_seen_at_the_next_look() -> None:
    planner = measured(Planner(), draft_s=0.01, step_s=0.03, round_trip_s=5.0, run_length=5)
    planner.begin()
    assert way_after(planner, 8) is CLOUD
    planner.estimates.round_trip_s = 0.02
    assert way_after(planner, 16).width > 0


def test_the_next_text_tries_drafts_again() -> None:
    planner = measured(Planner(), draft_s=0.05, step_s=0.03, round_trip_s=0.02, run_length=5)
    planner.begin()
    assert way_after(planner, 8) is CLOUD
    assert planner.begin().width > 0


def test_a_gain_that_is_too_small_to_see_does_not_switch_back() -> None:
    planner = measured(Planner(), draft_s=0.05, step_s=0.03, round_trip_s=0.02, run_length=5)
    planner.begin()
    assert way_after(planner, 8) is CLOUD
    measured(planner, draft_s=0.028, step_s=0.03, round_trip_s=0.05, run_length=2)
    assert way_after(planner, 50) is CLOUD


def test_what_judging_a_node_costs_sets_how_probable_it_must_be() -> None:
    cheap, dear = Planner(), Planner()
    for count in (1, 9, 17, 33) * 30:
        cheap.estimates.verify_s.observe(count, 0.03)
        dear.estimates.verify_s.observe(count, 0.03 + 0.002 * (count - 1))
    for planner in (cheap, dear):
        planner.estimates.draft_s.observe(8, 0.01)
        planner.begin()
    assert way_after(dear, 8).least_offer_prob > 3 * way_after(cheap, 8).least_offer_prob


def test_under_cost_what_is_judged_in_vain_makes_offers_rarer() -> None:
    planner = Planner(Objective.COST)
    planner.begin()
    before = way_after(planner, 8, num_positions=10).least_offer_prob
    for length in range(16, 200, 8):
        wasteful = way_after(planner, length, num_positions=3 * length).least_offer_prob
    assert wasteful > before
    for length in range(200, 600, 8):
        thrifty = way_after(planner, length, num_positions=length).least_offer_prob
    assert thrifty < before


def test_under_privacy_only_sure_chains_are_drafted_or_nothing() -> None:
    planner = Planner(Objective.PRIVACY)
    assert planner.begin() is SURE
    measured(planner, draft_s=0.01, step_s=0.03, round_trip_s=0.02, run_length=5)
    assert way_after(planner, 8) is SURE
    measured(planner, draft_s=0.05, step_s=0.03, round_trip_s=0.02, run_length=5)
    ways = [way_after(planner, length) for length in range(16, 400, 8)]
    assert set(map(id, ways)) == {id(CLOUD), id(SURE)}  # it is tried again, and never with alternatives
    assert planner.begin() is SURE


def test_a_way_that_was_chosen_stays() -> None:
    planner = measured(Planner(fixed=TREE), draft_s=0.05, step_s=0.03, round_trip_s=0.02, run_length=5)
    assert planner.begin() is TREE
    assert way_after(planner, 100) is TREE


def test_a_review_takes_few_steps_however_long_the_text() -> None:
    planner = measured(Planner(), draft_s=0.01, step_s=0.03, round_trip_s=0.05, run_length=5)
    planner.begin()
    efforts = [effort_of(partial(planner.review, length, 2 * length, 10.0)) for length in (8, 16, 10**6)]
    assert max(effort.num_steps for effort in efforts) < 3000  # some 30 microseconds
