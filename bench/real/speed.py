"""Does `auto` hurt? Tokens a second and the first token's time beside the cloud alone and every fixed way, for real."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from random import Random
from typing import NamedTuple

import msgspec

from bench.claims import Claim
from bench.network.device import Arrivals
from bench.real.pair import KINDS, Pair, TextKey
from bench.real.row_file import RowFile
from bench.real.site import CLOUD, Site, open_site

AUTO = "auto"
WAYS = (CLOUD, "wait:4", "tree", "free", AUTO)
NUM_SOUNDED = 2  # texts, after which ways that are far behind write no more: a tree takes a minute for one
FAR_BEHIND = 0.85
ROUND_TRIPS_MS = (0.0, 20.0, 50.0, 100.0)
CORES = ("one each", "one for both")
DEVICE_CORE, CLOUD_CORE = 0, 1
FIRST_NUMBER = 10  # of the prompts: agreement is measured on those before
WARM_UP_TOKENS = 8


class SpeedCase(NamedTuple):
    """cores: of CORES."""

    cores: str
    round_trip_ms: float


class SpeedSize(NamedTuple):
    """num_devices: one after the other, each with nothing learnt. num_texts: of each. num_tokens: of a text."""

    num_devices: int
    num_texts: int
    num_tokens: int


class SpeedRow(msgspec.Struct, frozen=True):
    """One text. nth: that this device writes with this cloud in this way; 0 is its first.

    drafted: tokens of drafts that the cloud judged. tokens_per_s: behind the first arrival.
    """

    cores: str
    round_trip_ms: float
    way: str
    nth: int
    kind: str
    number: int
    temperature: float
    tokens: int
    drafted: int
    tokens_per_s: float
    first_token_s: float

    @property
    def case(self) -> SpeedCase:
        return SpeedCase(self.cores, self.round_trip_ms)


class Comparison(NamedTuple):
    """Auto's over that of another way, text by text. median, least, most: of the ratios. n: texts that both wrote."""

    way: str
    median: float
    least: float
    most: float
    n: int


def measure_speed(
    pair: Pair,
    todo: Sequence[SpeedCase],
    size: SpeedSize,
    file: RowFile[SpeedRow],
    until_s: float,
    say: Callable[[str], None],
) -> None:
    """Every way in turn, text by text, in the cases that the file lacks.

    Args:
        until_s: of `time.monotonic`; no case begins later.
    """
    done = {row.case for row in file.rows}
    missing = [case for case in todo if case not in done]
    if missing and time.monotonic() < until_s:
        asyncio.run(_measure(pair, missing, size, file, until_s, say))


async def _measure(
    pair: Pair,
    missing: Sequence[SpeedCase],
    size: SpeedSize,
    file: RowFile[SpeedRow],
    until_s: float,
    say: Callable[[str], None],
) -> None:
    before, device = os.sched_getaffinity(0), os.getpid()
    async with open_site(pair) as site:
        for way in WAYS:  # what is done once is done now
            await site.write(_key(0), way, num_tokens=WARM_UP_TOKENS)
        try:
            for case in missing:
                if time.monotonic() > until_s:
                    return
                pin_process(device, {DEVICE_CORE})
                pin_process(site.cloud.process_id, {CLOUD_CORE if case.cores == CORES[0] else DEVICE_CORE})
                site.set_round_trip(case.round_trip_ms)
                rows = await _measure_case(site, case, size)
                for row in rows:  # all or none of a case
                    file.add(row)
                compared = ", ".join(f"{some.median:.2f} of {some.way}" for some in compare_speeds(rows))
                say(f"{case}: auto from the second text on: {compared}")
        finally:
            pin_process(device, before)


async def _measure_case(site: Site, case: SpeedCase, size: SpeedSize) -> list[SpeedRow]:
    rows: list[SpeedRow] = []
    for device in range(size.num_devices):
        site.forget()
        for nth in range(size.num_texts):
            at = device * size.num_texts + nth
            ways = WAYS if at < NUM_SOUNDED else _not_far_behind(rows)
            key, in_turn = _key(at, device), Random(at).sample(ways, len(ways))
            rows += [await _write(site, case, way, nth, key, size.num_tokens) for way in in_turn]
    return rows


async def _write(site: Site, case: SpeedCase, way: str, nth: int, key: TextKey, num_tokens: int) -> SpeedRow:
    arrivals = Arrivals(None)
    report = await site.write(key, way, arrivals.note_text, num_tokens=num_tokens)
    later = len(report.tokens) - arrivals.counts[0]
    return SpeedRow(
        *case,
        way=way,
        nth=nth,
        kind=key.kind,
        number=key.number,
        temperature=key.temperature,
        tokens=len(report.tokens),
        drafted=report.num_drafted,
        tokens_per_s=round(later / (arrivals.times_s[-1] - arrivals.times_s[0]), 3),
        first_token_s=round(arrivals.times_s[0], 4),
    )


def _key(at: int, device: int = 0) -> TextKey:
    """Chat and code take turns, the least and the most agreement; what is first does from device to device."""
    return TextKey(KINDS[(at + device) % 2], FIRST_NUMBER + at, 0.0)


def _not_far_behind(rows: Sequence[SpeedRow]) -> tuple[str, ...]:
    """Always the cloud alone and auto; what else is near the best in any text so far."""
    best: dict[int, float] = {}
    for row in rows:
        best[row.number] = max(best.get(row.number, 0.0), row.tokens_per_s)
    near = {row.way for row in rows if row.tokens_per_s >= FAR_BEHIND * best[row.number]}
    return tuple(way for way in WAYS if way in near | {CLOUD, AUTO})


def pin_process(process_id: int, cores: set[int]) -> None:
    """All threads of a process."""
    for thread in os.listdir(f"/proc/{process_id}/task"):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread), cores)


def compare_speeds(rows: Iterable[SpeedRow]) -> list[Comparison]:
    """Auto beside each other way in one case, from the second text of each device on, in tokens a second."""
    return _compare([row for row in rows if row.nth], lambda row: row.tokens_per_s)


def speed_claims(rows: Iterable[SpeedRow]) -> Iterator[Claim]:
    """Auto over the best other way, by the median of the texts' ratios: from the second text on, and in the first.

    Of the worst case, and of each.
    """
    cases: dict[SpeedCase, list[SpeedRow]] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(row)
    for suffix, is_first in (("", False), ("_first_text", True)):
        speeds: dict[SpeedCase, Comparison] = {}
        delays: dict[SpeedCase, Comparison] = {}
        for case, of_case in cases.items():
            some = [row for row in of_case if (row.nth == 0) == is_first]
            if some:
                speeds[case] = min(_compare(some, lambda row: row.tokens_per_s), key=lambda other: other.median)
                delays[case] = max(_compare(some, lambda row: row.first_token_s), key=lambda other: other.median)
        if speeds:
            yield from _claims("auto_over_best", min, suffix, speeds)
            yield from _claims("first_token_over_best", max, suffix, delays)


def _claims(
    name: str, worst: Callable[[Iterable[float]], float], suffix: str, cases: dict[SpeedCase, Comparison]
) -> Iterator[Claim]:
    word = "min" if worst is min else "max"
    yield Claim(f"{name}_{word}{suffix}", worst(other.median for other in cases.values()), "x best", len(cases))
    for case, other in cases.items():
        place = f"{case.cores.replace(' ', '_')}_{case.round_trip_ms:g}"
        unit = f"x {other.way} ({other.least:.2f} to {other.most:.2f})"
        yield Claim(f"{name}{suffix}_{place}", other.median, unit, other.n)


def _compare(rows: Sequence[SpeedRow], measure: Callable[[SpeedRow], float]) -> list[Comparison]:
    """With the ways that wrote at least half of the texts; of the others it is known that they are far behind."""
    by_way: dict[str, dict[int, float]] = {}
    for row in rows:
        by_way.setdefault(row.way, {})[row.number] = measure(row)
    ours = by_way.pop(AUTO)
    comparisons = []
    for way, theirs in by_way.items():
        ratios = [ours[number] / theirs[number] for number in ours if number in theirs]
        if 2 * len(ratios) >= len(ours):
            comparisons.append(Comparison(way, statistics.median(ratios), min(ratios), max(ratios), len(ratios)))
    return comparisons
