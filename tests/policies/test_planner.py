"""The planner chooses by what was measured, and with hysteresis."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest

from skydraft.core import Objective, PassTimes
from skydraft.policies.estimates import Estimates
from skydraft.policies.planner import Planner
from skydraft.policies.throughput import Conditions, free_running_tokens_per_s
from skydraft.policies.undrafted import Undrafted
from skydraft.policies.way import CLOUD, SURE, SURE_PROB, TREE, Way
from tests.effort import effort_of


def measured(
    planner: Planner, draft_s: float, step_s: float, round_trip_s: float, run_length: float, node_s: float = 0.0
) -> Planner:
    """As after a text whose drafts ran this far."""
    estimates = planner.estimates
    for count in (1, 2, 8, 9) * 30:
        estimates.draft_s.observe(count, draft_s)
        estimates.verify_s.observe(count, step_s + node_s * (count - 1))
    estimates.round_trip_s = round_trip_s
    planner.begin()
    way_after(planner, 1)
    estimates.begin_way()
    conditions = Conditions(draft_s, step_s, step_s, round_trip_s, run_length, node_s)
    for _ in range(100):
        estimates.speed.observe(10, 10 / free_running_tokens_per_s(conditions))
    return planner


def way_after(planner: Planner, length: int, num_positions: int | None = None) -> Way:
    return planner.review(length, num_positions or 2 * length, length / 30)


def written_alone(planner: Planner, num_tokens: int, step_s: float = 0.03) -> list[Way]:
    """The cloud writes a token after the other. Returns the ways, as long as it is alone."""
    now_s, ways = 0.0, []
    planner.begin(now_s)
    for _ in range(num_tokens):
        now_s += step_s
        planner.saw_answer(now_s, 1, 1, has_credit=True)
        ways.append(planner.way)
        if planner.way is not CLOUD:
            break
    return ways


def test_before_anything_is_known_a_cloud_here_begins_and_drafts_are_tried_with_its_first_token() -> None:
    planner = Planner(estimates=Estimates(is_near=True))
    assert planner.begin() is CLOUD
    assert way_after(planner, 1).width > 0
    assert planner.why_undrafted is None
    assert Planner().begin().width > 0  # a cloud elsewhere is not held up


def test_a_cloud_elsewhere_says_what_its_passes_take_and_the_device_decides_before_the_first_token() -> None:
    planner = Planner()
    planner.begin()
    planner.saw_pass_times(PassTimes(0.005, 0.0001))
    assert planner.way is CLOUD
    planner.estimates.draft_s.tell(PassTimes(0.04, 0.0001))
    assert planner.begin() is CLOUD
    planner.saw_pass_times(PassTimes(0.1, 0.0001))
    assert planner.way.width > 0


def test_a_cloud_that_writes_alone_for_another_reason_than_speed_is_not_explained() -> None:
    for planner in (Planner(fixed=CLOUD), Planner(has_draft=False), Planner(Objective.ENERGY)):
        planner.estimates.draft_s.tell(PassTimes(9.0, 0.0))
        assert planner.way is CLOUD
        assert planner.why_undrafted is None


@pytest.mark.parametrize("is_near", [False, True])
def test_where_a_position_costs_as_much_as_a_token_nothing_is_ever_drafted(is_near: bool) -> None:
    """A quantised model of 1.5 * 10**9 parameters on a processor, and a draft of a third of its size."""
    planner = Planner(estimates=Estimates(is_near=is_near))
    planner.estimates.draft_s.tell(PassTimes(0.044, 0.026))
    planner.begin()
    planner.saw_pass_times(PassTimes(0.059, 0.049))
    assert set(map(id, written_alone(planner, 2000, 0.059))) == {id(CLOUD)}


def test_a_draft_slower_than_the_cloud_is_given_up_and_not_tried_again() -> None:
    planner = measured(Planner(), draft_s=0.05, step_s=0.03, round_trip_s=0.02, run_length=5)
    assert way_after(planner, 8) is CLOUD
    assert planner.why_undrafted is Undrafted.SLOW_DRAFT
    assert set(map(id, written_alone(planner, 2000))) == {id(CLOUD)}


def test_drafts_that_failed_are_tried_again_and_rarer_each_time() -> None:
    planner = measured(Planner(), draft_s=0.01, step_s=0.03, round_trip_s=0.02, run_length=0.1)
    assert way_after(planner, 8) is CLOUD
    pauses = []
    for _ in range(4):
        pauses.append(len(written_alone(planner, 5000)))
        for _ in range(20):
            planner.estimates.speed.observe(3, 0.2)
        assert way_after(planner, 10**6 + len(pauses) * 100) is CLOUD
    assert pauses[0] >= 64
    assert [later > 1.9 * earlier for earlier, later in pairwise(pauses)] == [True] * 3


def test_a_link_that_becomes_fast_is_seen_at_the_next_look() -> None:
    planner = measured(Planner(), draft_s=0.01, step_s=0.03, round_trip_s=5.0, run_length=5)
    assert way_after(planner, 8) is CLOUD
    planner.estimates.round_trip_s = 0.02
    assert way_after(planner, 16).width > 0


def test_what_is_known_to_pay_is_begun_with_in_the_next_text_and_what_does_not_is_not() -> None:
    planner = measured(Planner(), draft_s=0.01, step_s=0.03, round_trip_s=0.02, run_length=5)
    assert way_after(planner, 8).width > 0
    assert planner.begin().width > 0
    planner = measured(Planner(), draft_s=0.05, step_s=0.03, round_trip_s=0.02, run_length=5)
    assert way_after(planner, 8) is CLOUD
    assert planner.begin() is CLOUD


def test_a_gain_that_is_too_small_to_see_does_not_switch_back() -> None:
    planner = measured(Planner(), draft_s=0.01, step_s=0.03, round_trip_s=0.2, run_length=2)
    assert way_after(planner, 8) is CLOUD
    planner.estimates.round_trip_s = 0.146
    gain = planner.best_tokens_per_s * 0.03
    assert 1.005 < gain < 1.02
    assert way_after(planner, 50) is CLOUD


def passes(planner: Planner, begun_s: float, pass_s: float, count: int) -> float:
    for _ in range(count):
        begun_s += pass_s
        planner.saw_answer(begun_s, 1, 1, has_credit=True)
    return begun_s


def test_a_cloud_that_is_slower_while_the_device_drafts_is_taken_turns_with() -> None:
    planner = Planner(estimates=Estimates(is_near=True))
    planner.estimates.draft_s.tell(PassTimes(0.01, 0.0002))
    planner.begin()
    planner.saw_pass_times(PassTimes(0.03, 0.0001))
    now_s = passes(planner, 0.0, 0.03, 1)
    assert planner.way.has_credit
    assert planner.way.width
    passes(planner, now_s, 0.06, 16)
    assert planner.estimates.contention > 1.8
    assert not planner.way.has_credit
    assert not planner.way.is_eager
    assert planner.begin() is CLOUD  # the first token does not wait for the device's prompt
    passes(planner, 5.0, 0.03, 1)
    assert not planner.way.has_credit


def test_turns_are_left_for_a_moment_to_see_whether_they_are_needed_still_and_rarer_each_time() -> None:
    planner = Planner(estimates=Estimates(is_near=True))
    planner.estimates.draft_s.tell(PassTimes(0.01, 0.0002))
    planner.begin()
    planner.saw_pass_times(PassTimes(0.03, 0.0001))
    now_s = passes(planner, passes(planner, 0.0, 0.03, 1), 0.06, 16)
    pauses = [0]
    while len(pauses) < 4:
        assert not planner.way.has_credit
        planner.saw_question(now_s)
        now_s += 0.05
        planner.saw_answer(now_s, 4, 5, has_credit=False)
        pauses[-1] += 4
        if planner.way.has_credit:
            now_s = passes(planner, now_s, 0.06, 16)
            pauses.append(0)
    assert 40 < pauses[0] <= 64
    assert [later > 1.9 * earlier for earlier, later in pairwise(pauses[:3])] == [True] * 2
    planner.estimates.forget_contention()
    passes(planner, now_s, 0.03, 16)
    assert planner.way.has_credit


def test_a_cloud_elsewhere_that_becomes_slower_is_slow_and_not_held_up() -> None:
    planner = Planner()
    planner.begin()
    planner.saw_pass_times(PassTimes(0.03, 0.0001))
    passes(planner, 0.0, 0.06, 60)
    assert planner.estimates.contention == 1
    assert planner.estimates.verify_s.at(1) == pytest.approx(0.06, rel=0.1)


def test_the_dearer_it_is_to_read_a_node_the_more_probable_it_must_be() -> None:
    least = []
    for node_s in (0.0001, 0.003, 0.018):
        planner = Planner()
        planner.estimates.draft_s.tell(PassTimes(0.02, node_s))
        planner.begin()
        planner.saw_pass_times(PassTimes(0.06, 0.0001))
        least.append(planner.way.least_prob)
    assert least[0] < least[1] < least[2] <= 0.3


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
    measured(planner, draft_s=0.01, step_s=0.03, round_trip_s=0.02, run_length=5)
    assert way_after(planner, 8) is SURE
    assert planner.begin() is SURE
    for _ in range(20):
        planner.estimates.speed.observe(3, 0.2)
    assert way_after(planner, 16) is CLOUD
    assert written_alone(planner, 400)[-1] is SURE  # it is tried again, and never with alternatives


def test_a_way_that_was_chosen_stays() -> None:
    planner = measured(Planner(fixed=TREE), draft_s=0.05, step_s=0.03, round_trip_s=0.02, run_length=5)
    assert planner.begin() is TREE
    assert way_after(planner, 100) is TREE


def test_a_review_takes_few_steps_however_long_the_text() -> None:
    planner = measured(Planner(), draft_s=0.01, step_s=0.03, round_trip_s=0.05, run_length=5)
    planner.begin()
    efforts = [effort_of(partial(planner.review, length, 2 * length, 10.0)) for length in (8, 16, 10**6)]
    assert max(effort.num_steps for effort in efforts) < 3000  # some 30 microseconds


@pytest.mark.parametrize("objective", list(Objective))
def test_without_a_draft_model_the_cloud_writes_by_itself(objective: Objective) -> None:
    planner = measured(Planner(objective, has_draft=False), 0.001, 0.05, 0.0, 30)
    assert planner.begin() is CLOUD
    planner.saw_pass_times(PassTimes(0.05, 0.0))
    assert way_after(planner, 40) is CLOUD


def test_what_is_looked_up_is_offered_where_judging_it_takes_less_than_it_saves() -> None:
    planner = Planner(has_draft=False)
    planner.estimates.verify_s.tell(PassTimes(0.03, 0.03 * 0.4))
    assert planner.least_lookup_prob == pytest.approx(0.4)  # a position takes two fifths of a pass
    planner.estimates.verify_s.tell(PassTimes(0.03, 0.00003))
    assert planner.least_lookup_prob == pytest.approx(0.01)
    planner.estimates.verify_s.tell(PassTimes(0.03, 0.06))
    assert planner.least_lookup_prob > 1  # nothing is


def test_what_is_looked_up_is_surer_where_little_is_to_leave_or_to_be_judged_in_vain() -> None:
    assert Planner(Objective.PRIVACY, has_draft=False).least_lookup_prob == SURE_PROB
    planner = Planner(Objective.COST, has_draft=False)
    planner.begin()
    before = planner.least_lookup_prob
    for length in range(10, 100, 10):
        way_after(planner, length, num_positions=5 * length)
    assert planner.least_lookup_prob > before
