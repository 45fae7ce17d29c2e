from __future__ import annotations

from functools import partial

import pytest

from bench.network.made_up import MadeUpMinds
from bench.network.model_cache import Minds, Opening, Thinking
from bench.network.profiles import PROFILES, BlockTimes, Sides
from bench.network.virtual import Clock, Processor, Virtual, VirtualLink, VirtualText
from skydraft.core import Prompt, SamplingParams, TokenSegment
from skydraft.policies.planner import Planner
from skydraft.policies.way import FREE, parse_way
from tests.linked import cloud_only, table

TARGET = "table:vocab=64,seed=3,order=2,sharpness=3"
PROMPT = (1, 2, 3)
NUM_TOKENS = 48
WAYS = ("auto", "wait:1", "wait:4", "pipelined:4", "prepared:4", "tree", "free")


def _minds(draft: str = f"{TARGET},noise=1", temperature: float = 0.0) -> Minds:
    sampling = SamplingParams(temperature=temperature, seed=7, max_tokens=NUM_TOKENS)
    return Minds(table(TARGET), table(draft), Opening(PROMPT, sampling))


def _write(
    minds: Thinking, way: str, round_trip_ms: float = 50, profile: str = "P-A", is_oracle: bool = False
) -> Virtual:
    planner = Planner(fixed=None if way == "cloud" else parse_way(way))
    link = VirtualLink(round_trip_ms / 1000, 10)
    return VirtualText(minds, PROFILES[profile].sides, link, planner, way != "cloud", is_oracle).run()


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


def test_jobs_on_one_processor_share_it_and_those_on_two_do_not() -> None:
    clock, ends_s = Clock(), dict[str, float]()
    shared, other = Processor(clock), Processor(clock)

    def ends(name: str) -> None:
        ends_s[name] = clock.now_s

    shared.run(2.0, partial(ends, "long"))
    other.run(2.0, partial(ends, "elsewhere"))
    clock.after(0.5, lambda: shared.run(0.5, partial(ends, "short")))
    clock.run_until(lambda: len(ends_s) == 3)
    assert ends_s == pytest.approx({"short": 1.5, "elsewhere": 2.0, "long": 2.5})


def test_measured_blocks_take_their_times_and_others_lie_on_straight_lines() -> None:
    times = BlockTimes([(1, 59), (2, 106), (5, 256)], prompt_ms=20)
    assert [1000 * times.pass_s(num_tokens) for num_tokens in (1, 2, 3, 5, 8)] == pytest.approx(
        [59, 106, 156, 256, 406]
    )
    assert times.pass_s(0, 100) == pytest.approx(2.0)


@pytest.mark.parametrize("agreement", [0.5, 0.8, 0.95])
def test_a_made_up_draft_agrees_as_often_as_is_asked_for_and_knows_how_sure_it_is(agreement: float) -> None:
    minds = MadeUpMinds(Opening(PROMPT, SamplingParams(max_tokens=600)), agreement, seed=5)
    text = minds.text()
    best = [minds.guesses(text[:length], 1).token_ids[0] == text[length] for length in range(len(text))]
    assert sum(best) / len(best) == pytest.approx(agreement, abs=0.06)
    sure = [is_right for length, is_right in enumerate(best) if minds.guesses(text[:length], 1).scores[0] > -0.05]
    assert sum(sure) / len(sure) > 0.95


def test_a_core_for_both_makes_drafts_cost_the_cloud_time() -> None:
    profile, minds = PROFILES["P-A"], _minds()

    def seconds(is_shared: bool, is_drafted: bool) -> float:
        sides = Sides(profile.draft_pace, profile.cloud_pace, is_shared)
        return VirtualText(minds, sides, VirtualLink(0.05, 10), Planner(fixed=FREE), is_drafted).run().times_s[-1]

    assert seconds(is_shared=True, is_drafted=False) == seconds(is_shared=False, is_drafted=False)
    assert seconds(is_shared=True, is_drafted=True) > 1.4 * seconds(is_shared=False, is_drafted=True)
