from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from skydraft.core import Mode, Objective, ShareLevel
from skydraft.errors import ConfigError, TransportError
from skydraft.policies.strategy import NUM_CONFIRMATIONS, Situation, Strategy, choose_mode

BEST = Situation(
    share=ShareLevel.TOKENS,
    has_cloud=True,
    is_reachable=True,
    has_draft=True,
    edge_tokens_per_s=60.0,
    cloud_tokens_per_s=20.0,
    hybrid_tokens_per_s=30.0,
)


Facts: TypeAlias = Mapping[str, Any]  # fields of a Situation


def having(**facts: Any) -> Situation:
    return replace(BEST, **facts)


def mode(**facts: Any) -> Mode:
    return choose_mode(having(**facts)).mode


def run(strategy: Strategy, *situations: Situation) -> list[Mode]:
    return [strategy.decide(situation).mode for situation in situations]


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize(
    ("facts", "forced", "reason"),
    [
        ({"share": ShareLevel.NONE}, Mode.EDGE, "share level none"),
        ({"has_cloud": False, "is_reachable": False}, Mode.EDGE, "no cloud is configured"),
        ({"is_reachable": False}, Mode.EDGE, "the cloud cannot be reached"),
        ({"has_draft": False}, Mode.CLOUD, "no draft model"),
        ({"has_draft": False, "does_cloud_see_all": False}, Mode.CLOUD, "without what the device observed"),
    ],
)
def test_what_leaves_no_choice_goes_before_any_objective(
    objective: Objective, facts: Facts, forced: Mode, reason: str
) -> None:
    decision = choose_mode(having(objective=objective, **facts))
    assert decision.mode is forced
    assert reason in decision.reason


@pytest.mark.parametrize(
    ("facts", "error", "obstacle"),
    [
        ({"share": ShareLevel.NONE}, ConfigError, "share level none"),
        ({"has_cloud": False}, ConfigError, "no cloud is configured"),
        ({"is_reachable": False}, TransportError, "the cloud cannot be reached"),
    ],
)
def test_where_nobody_can_write_the_error_names_the_obstacle_and_the_way_out(
    facts: Facts, error: type[Exception], obstacle: str
) -> None:
    for decide in (choose_mode, Strategy().decide):
        with pytest.raises(error, match=f"{obstacle}.*give it a draft model"):
            decide(having(has_draft=False, **facts))


def test_latency_takes_the_faster_of_the_modes_that_give_the_large_models_text() -> None:
    assert mode() is Mode.HYBRID
    assert mode(cloud_tokens_per_s=31.0) is Mode.CLOUD
    assert mode(cloud_tokens_per_s=30.0) is Mode.HYBRID  # a tie: the cloud has less to do


def test_a_fast_device_is_no_reason_to_write_without_the_large_model() -> None:
    assert mode(edge_tokens_per_s=10_000.0) is Mode.HYBRID


def test_the_device_writes_alone_where_the_others_are_slower_than_people_read() -> None:
    decision = choose_mode(having(cloud_tokens_per_s=4.0, hybrid_tokens_per_s=4.9))
    assert decision.mode is Mode.EDGE
    assert decision.reason == (
        "device and cloud together would be slower than people read (5 tokens/s): the device alone at 60 tokens/s, "
        "device and cloud together at 4.9"
    )
    assert mode(cloud_tokens_per_s=4.0, hybrid_tokens_per_s=5.0) is Mode.HYBRID
    assert mode(cloud_tokens_per_s=4.0, hybrid_tokens_per_s=4.9, edge_tokens_per_s=4.9) is Mode.HYBRID
    assert mode(cloud_tokens_per_s=4.0, hybrid_tokens_per_s=4.9, edge_tokens_per_s=None) is Mode.HYBRID


@pytest.mark.parametrize("unknown", [{"cloud_tokens_per_s": None}, {"hybrid_tokens_per_s": None}])
def test_hybrid_is_tried_where_a_speed_is_not_known(unknown: Facts) -> None:
    decision = choose_mode(having(**unknown))
    assert decision.mode is Mode.HYBRID
    assert "not known yet" in decision.reason


def test_a_cloud_that_lacks_the_evidence_never_writes_alone() -> None:
    for objective in Objective:
        for speed in (1.0, 1000.0):
            facts: Facts = {"cloud_tokens_per_s": speed, "battery_share": 0.1, "objective": objective}
            assert mode(does_cloud_see_all=False, **facts) is not Mode.CLOUD


def test_cost_drafts_for_the_cloud_though_the_cloud_alone_is_faster() -> None:
    assert mode(objective=Objective.COST, cloud_tokens_per_s=90.0) is Mode.HYBRID
    assert mode(objective=Objective.COST, hybrid_tokens_per_s=2.0) is Mode.EDGE


def test_privacy_stays_on_the_device_though_it_is_slow() -> None:
    assert mode(objective=Objective.PRIVACY, edge_tokens_per_s=0.5) is Mode.EDGE


def test_energy_lets_the_cloud_write_while_on_battery_only() -> None:
    assert mode(objective=Objective.ENERGY, battery_share=0.9) is Mode.CLOUD
    assert mode(objective=Objective.ENERGY, battery_share=0.9, is_plugged=True) is Mode.HYBRID
    assert mode(objective=Objective.ENERGY, battery_share=None) is Mode.HYBRID


def test_energy_keeps_the_radio_quiet_where_the_cloud_cannot_write_alone() -> None:
    assert mode(objective=Objective.ENERGY, battery_share=0.9, does_cloud_see_all=False) is Mode.EDGE


def test_a_low_battery_spares_it_under_latency_too() -> None:
    assert mode(battery_share=0.21) is Mode.HYBRID
    decision = choose_mode(having(battery_share=0.2))
    assert decision.mode is Mode.CLOUD
    assert decision.reason.startswith("the battery is at 20%")
    assert mode(battery_share=0.2, is_plugged=True) is Mode.HYBRID
    assert mode(battery_share=0.2, objective=Objective.COST) is Mode.HYBRID


def test_a_switch_needs_a_lead_of_ten_per_cent_seen_three_times_in_a_row() -> None:
    strategy, faster = Strategy(), having(cloud_tokens_per_s=33.1)
    assert run(strategy, BEST, faster, faster, faster) == [Mode.HYBRID, Mode.HYBRID, Mode.HYBRID, Mode.CLOUD]
    assert run(strategy, having(hybrid_tokens_per_s=21.0), BEST, BEST) == [Mode.CLOUD] * 3
    assert run(strategy, BEST) == [Mode.HYBRID]


def test_a_smaller_lead_never_switches() -> None:
    strategy, little_faster = Strategy(), having(cloud_tokens_per_s=32.9)
    assert run(strategy, BEST, *[little_faster] * 20) == [Mode.HYBRID] * 21


def test_a_lead_that_is_lost_in_between_counts_anew() -> None:
    strategy, faster = Strategy(), having(cloud_tokens_per_s=90.0)
    assert run(strategy, *[BEST, faster, faster] * 5, BEST) == [Mode.HYBRID] * 16


def test_two_challengers_do_not_confirm_each_other() -> None:
    strategy = Strategy()
    cloud_leads, edge_leads = having(cloud_tokens_per_s=90.0), having(objective=Objective.PRIVACY)
    assert run(strategy, BEST, *[cloud_leads, edge_leads] * 3) == [Mode.HYBRID] * 7


def test_coming_back_from_the_device_alone_needs_a_lead_over_reading_speed() -> None:
    strategy = Strategy()
    slow = having(cloud_tokens_per_s=1.0, hybrid_tokens_per_s=4.0)
    almost = having(cloud_tokens_per_s=1.0, hybrid_tokens_per_s=5.4)
    enough = having(cloud_tokens_per_s=1.0, hybrid_tokens_per_s=5.6)
    assert run(strategy, slow, *[almost] * 9) == [Mode.EDGE] * 10
    assert run(strategy, *[enough] * 3) == [Mode.EDGE, Mode.EDGE, Mode.HYBRID]


def test_what_becomes_impossible_is_left_at_once_and_taken_up_again_with_care() -> None:
    strategy = Strategy()
    lost = having(is_reachable=False)
    assert run(strategy, BEST, lost, BEST, lost, BEST, BEST, BEST) == [
        Mode.HYBRID, Mode.EDGE, Mode.EDGE, Mode.EDGE, Mode.EDGE, Mode.EDGE, Mode.HYBRID,
    ]  # fmt: skip
    assert run(Strategy(), having(cloud_tokens_per_s=90.0), having(does_cloud_see_all=False))[-1] is Mode.HYBRID


def test_a_decision_that_waits_says_what_for() -> None:
    strategy = Strategy()
    strategy.decide(BEST)
    reason = strategy.decide(having(cloud_tokens_per_s=90.0)).reason
    assert reason == (
        f"device and cloud together for now: the cloud alone looked better 1 of {NUM_CONFIRMATIONS} times in a row"
    )


@pytest.mark.parametrize(
    "facts",
    [{"edge_tokens_per_s": 0.0}, {"cloud_tokens_per_s": -1.0}, {"hybrid_tokens_per_s": float("nan")},
     {"battery_share": 1.2}],
)  # fmt: skip
def test_impossible_facts_are_refused(facts: Facts) -> None:
    with pytest.raises(ConfigError, match=next(iter(facts))):
        having(**facts)


def test_a_text_begins_with_drafts_and_goes_on_in_the_cloud_where_that_is_still_faster() -> None:
    faster = having(cloud_tokens_per_s=90.0)
    assert run(Strategy(), *[faster] * 5) == [Mode.HYBRID, Mode.HYBRID, Mode.HYBRID, Mode.CLOUD, Mode.CLOUD]
    assert run(Strategy(), having(battery_share=0.1)) == [Mode.CLOUD]  # not for its speed


@pytest.mark.parametrize(
    ("facts", "is_for_speed"),
    [
        ({"cloud_tokens_per_s": 1.0, "hybrid_tokens_per_s": 2.0}, True),
        ({"objective": Objective.PRIVACY}, False),
        ({"is_reachable": False}, False),
        ({"battery_share": 0.1, "does_cloud_see_all": False}, False),
    ],
)
def test_whether_the_device_writes_alone_for_the_speed_of_others_is_said(facts: Facts, is_for_speed: bool) -> None:
    decision = choose_mode(having(**facts))
    assert (decision.mode, decision.is_for_speed) == (Mode.EDGE, is_for_speed)
