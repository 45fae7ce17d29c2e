from __future__ import annotations

import pytest

from bench.network.model_cache import Minds, Opening
from bench.network.profiles import PROFILES
from bench.network.virtual import Virtual, VirtualLink, VirtualText
from skydraft.core import Prompt, SamplingParams, TokenSegment
from skydraft.policies.planner import Planner
from skydraft.policies.way import parse_way
from tests.linked import cloud_only, table

TARGET = "table:vocab=64,seed=3,order=2,sharpness=3"
PROMPT = (1, 2, 3)
NUM_TOKENS = 48
WAYS = ("auto", "wait:1", "wait:4", "pipelined:4", "prepared:4", "tree", "free")


def _minds(draft: str = f"{TARGET},noise=1", temperature: float = 0.0) -> Minds:
    sampling = SamplingParams(temperature=temperature, seed=7, max_tokens=NUM_TOKENS)
    return Minds(table(TARGET), table(draft), Opening(PROMPT, sampling))


def _write(minds: Minds, way: str, round_trip_ms: float = 50, profile: str = "P-A", is_oracle: bool = False) -> Virtual:
    planner = Planner(fixed=None if way == "cloud" else parse_way(way))
    link = VirtualLink(round_trip_ms / 1000, 10)
    return VirtualText(minds, PROFILES[profile], link, planner, way != "cloud", is_oracle).run()


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("way", ["cloud", *WAYS])
def test_every_way_writes_the_text_of_the_target_alone(way: str, temperature: float) -> None:
    minds = _minds(temperature=temperature)
    truth = cloud_only(table(TARGET), minds.opening.sampling, Prompt((TokenSegment(PROMPT),)))
    for is_oracle in (False, True):
        if way != "cloud" or not is_oracle:
            assert list(_write(minds, way, is_oracle=is_oracle).token_ids) == truth


@pytest.mark.parametrize("round_trip_ms", [0, 50, 300])
def test_the_cloud_alone_takes_three_round_trips_its_prompt_and_a_pass_for_each_token(round_trip_ms: float) -> None:
    text = _write(_minds(), "cloud", round_trip_ms)
    pace = PROFILES["P-A"].cloud_pace
    first_s = 3 * round_trip_ms / 1000 + pace.pass_s(0, len(PROMPT))
    assert text.times_s[0] == pytest.approx(first_s, abs=1e-3)  # the rate of the link takes the rest
    assert text.times_s[-1] == pytest.approx(first_s + (NUM_TOKENS - 1) * pace.pass_s(1), abs=1e-3)
    assert text.num_positions == NUM_TOKENS - 1


def test_stop_and_wait_takes_a_block_a_round_trip_and_a_pass_each_round() -> None:
    text = _write(_minds(draft=TARGET), "wait:4", 100)
    profile = PROFILES["P-A"]
    cycle_s = 4 * profile.draft_pace.pass_s(1) + 0.1 + profile.cloud_pace.pass_s(5)
    gaps_s = [after - before for before, after in zip(text.times_s[1:-2], text.times_s[2:-1], strict=True)]
    assert gaps_s == pytest.approx([cycle_s] * len(gaps_s), abs=1e-3)
    assert set(text.counts[:-1]) == {5}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("profile", ["P-A", "P-B"])
def test_an_oracle_wastes_nothing_and_is_not_slower(way: str, profile: str) -> None:
    minds = _minds()
    ours, oracle = _write(minds, way, profile=profile), _write(minds, way, profile=profile, is_oracle=True)
    assert oracle.times_s[-1] <= 1.03 * ours.times_s[-1]
    assert oracle.num_positions <= ours.num_positions
    if parse_way(way) is None or way == "free":
        assert oracle.num_positions <= NUM_TOKENS


def test_a_draft_that_is_the_target_runs_ahead_at_its_own_pace() -> None:
    text = _write(_minds(draft=TARGET), "free", 50)
    assert NUM_TOKENS / text.times_s[-1] > 1.7 * NUM_TOKENS / _write(_minds(), "cloud", 50).times_s[-1]


def test_deciding_is_timed_for_each_answer() -> None:
    text = _write(_minds(), "auto")
    assert len(text.stopwatch.laps_s) == len(text.times_s)
    assert all(lap_s > 0 for lap_s in text.stopwatch.laps_s)
