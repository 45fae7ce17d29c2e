"""The default against the cloud alone and the best fixed way: links, processors, agreements, and what blocks cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product

import pytest

from bench.network.made_up import MadeUpMinds
from bench.network.model_cache import Opening
from bench.network.profiles import BlockTimes, Sides
from bench.network.virtual import Virtual, VirtualLink, VirtualText
from skydraft.core import Objective, PassTimes, SamplingParams
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.planner_book import PlannerBook
from skydraft.policies.estimates import Estimates
from skydraft.policies.planner import Planner
from skydraft.policies.way import CLOUD, parse_way

# Measured: Qwen2.5-Coder 1.5B and 0.5B, Q4_K_M, one core each. A position costs nearly as much as a token.
ON_CPU = Sides(
    BlockTimes([(1, 44), (2, 86), (5, 148), (8, 172), (16, 260), (32, 436)], prompt_ms=9.5),
    BlockTimes([(1, 59), (2, 106), (5, 256), (8, 475), (16, 526), (32, 962)], prompt_ms=20.5),
)
# As on accelerators, where memory bounds a pass: further positions cost next to nothing.
FLAT = Sides(BlockTimes([(1, 10), (8, 11.4)], prompt_ms=0.2), BlockTimes([(1, 30), (9, 31)], prompt_ms=0.1))
FLAT_FOR_THE_CLOUD = Sides(BlockTimes([(1, 20), (8, 40)], prompt_ms=1), BlockTimes([(1, 60), (9, 62)], prompt_ms=1))

ROUND_TRIPS_MS = (0, 20, 50, 100)
AGREEMENTS = (0.5, 0.7, 0.85, 0.95)
NUM_TEXTS, NUM_TOKENS, PROMPT = 3, 64, tuple(range(40))


@cache
def minds(agreement: float, seed: int) -> MadeUpMinds:
    return MadeUpMinds(Opening(PROMPT, SamplingParams(max_tokens=NUM_TOKENS)), agreement, seed)


def write(way: str, sides: Sides, round_trip_ms: float, agreement: float) -> list[Virtual]:
    """Texts of one device, one after the other, with a cloud that may be on the same processor."""
    planner = Planner(fixed=None if way == "auto" else parse_way(way), estimates=Estimates(is_near=True))
    step_s, block_s = sides.draft_pace.pass_s(1), sides.draft_pace.pass_s(5)
    planner.estimates.draft_s.tell(PassTimes(step_s, (block_s - step_s) / 4))
    link = VirtualLink(round_trip_ms / 1000, 10)
    return [
        VirtualText(minds(agreement, seed), sides, link, planner, planner.fixed is not CLOUD).run()
        for seed in range(NUM_TEXTS)
    ]


def speed(texts: Sequence[Virtual]) -> float:
    return sum(len(text.token_ids) for text in texts) / sum(text.times_s[-1] for text in texts)


def ratios(sides: Sides, round_trip_ms: float, agreement: float, ways: Sequence[str]) -> tuple[float, ...]:
    """Speed over the best of all ways and lateness of the first token over the cloud's: in the first text, and then."""
    auto, cloud = (write(way, sides, round_trip_ms, agreement) for way in ("auto", "cloud"))
    others = [cloud, *(write(way, sides, round_trip_ms, agreement) for way in ways)]
    lateness = [ours.times_s[0] / theirs.times_s[0] for ours, theirs in zip(auto, cloud, strict=True)]
    first = speed(auto[:1]) / max(speed(texts[:1]) for texts in others)
    return first, lateness[0], speed(auto[1:]) / max(speed(texts[1:]) for texts in others), max(lateness[1:])


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("round_trip_ms", ROUND_TRIPS_MS)
def test_where_blocks_cost_as_much_as_their_tokens_the_default_is_the_cloud_alone(
    round_trip_ms: float, is_shared: bool
) -> None:
    for agreement in AGREEMENTS:
        found = ratios(ON_CPU._replace(is_shared=is_shared), round_trip_ms, agreement, ("wait:1",))
        assert found == pytest.approx((1, 1, 1, 1), abs=0.005)


@pytest.mark.parametrize("sides", [FLAT, FLAT_FOR_THE_CLOUD], ids=["flat", "flat for the cloud"])
@pytest.mark.parametrize("round_trip_ms", [0, 50])
def test_on_processors_of_their_own_the_default_is_as_fast_as_the_best_way(sides: Sides, round_trip_ms: float) -> None:
    for agreement in AGREEMENTS:
        first, first_late, later, later_late = ratios(sides, round_trip_ms, agreement, ("tree", "free"))
        assert first >= 0.9
        assert first_late <= 1.15
        assert later >= 0.96  # three texts are few: which guesses are read in time is a matter of luck too
        assert later_late <= 1.05


@pytest.mark.parametrize("sides", [FLAT, FLAT_FOR_THE_CLOUD], ids=["flat", "flat for the cloud"])
def test_on_one_processor_the_default_is_as_fast_as_the_best_way_on_average_and_nowhere_much_slower(
    sides: Sides,
) -> None:
    """Few rounds decide a text, so how lucky they are does too."""
    found = [
        ratios(sides._replace(is_shared=True), round_trip_ms, agreement, ("wait:8", "tree", "free"))
        for round_trip_ms, agreement in product((0, 50), AGREEMENTS)
    ]
    firsts, firsts_late, laters, laters_late = (list(column) for column in zip(*found, strict=True))
    assert max(firsts_late + laters_late) <= 1.05
    assert min(laters) >= 0.8
    assert sum(laters) / len(laters) >= 1.0
    assert min(firsts) >= 0.7
    assert sum(firsts) / len(firsts) >= 0.9


def alternating_speeds(kinds: tuple[str, str], sides: Sides, round_trip_ms: float) -> tuple[float, float]:
    """Of texts of two kinds in turns, one that both models agree on and one that they do not; a pair of each first."""
    step_s, block_s = sides.draft_pace.pass_s(1), sides.draft_pace.pass_s(5)
    book, link = PlannerBook(PassTimes(step_s, (block_s - step_s) / 4)), VirtualLink(round_trip_ms / 1000, 10)
    texts: tuple[list[Virtual], list[Virtual]] = ([], [])
    for nth in range(10):
        mind = minds((0.95, 0.3)[nth % 2], nth)
        with book.planner(CloudAddress("ws://127.0.0.1:9"), Objective.LATENCY, None, kinds[nth % 2]) as planner:
            texts[nth % 2].append(VirtualText(mind, sides, link, planner).run())
    return speed(texts[0][1:]), speed(texts[1][1:])


@pytest.mark.parametrize("sides", [FLAT, FLAT_FOR_THE_CLOUD], ids=["flat", "flat for the cloud"])
@pytest.mark.parametrize("round_trip_ms", [0, 50])
def test_on_one_processor_a_kind_of_text_whose_drafts_fail_does_not_stop_those_of_another(
    sides: Sides, round_trip_ms: float
) -> None:
    shared = sides._replace(is_shared=True)
    good, bad = alternating_speeds(("code", "talk"), shared, round_trip_ms)
    good_of_one, bad_of_one = alternating_speeds(("", ""), shared, round_trip_ms)
    assert good > 1.3 * good_of_one
    assert bad > 0.95 * bad_of_one
