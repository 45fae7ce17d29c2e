"""Does `auto` hurt? Tokens a second and the first token's time beside the cloud alone and every fixed way, for real."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from bench.claims import Claim
from bench.network.device import Arrivals
from bench.real.pair import KINDS, Pair, TextKey
from bench.real.row_file import RowFile
from bench.real.site import CLOUD, Site, open_site

AUTO = "auto"
WAYS = (CLOUD, "wait:4", "tree", "free", AUTO)
ROUND_TRIPS_MS = (0.0, 20.0, 50.0, 100.0)
CORES = ("one each", "one for both")
DEVICE_CORE, CLOUD_CORE = 0, 1


class SpeedCase(NamedTuple):
    """cores: of CORES."""

    cores: str
    round_trip_ms: float


class SpeedSize(NamedTuple):
    """num_texts: of a case and way, one after the other: the device remembers. num_tokens: of a text."""

    num_texts: int
    num_tokens: int


class SpeedRow(msgspec.Struct, frozen=True):
    """One text. nth: that this device writes with this cloud in this way; 0 is its first.

    tokens_per_s: behind the first arrival.
    """

    cores: str
    round_trip_ms: float
    way: str
    nth: int
    kind: str
    number: int
    temperature: float
    tokens: int
    tokens_per_s: float
    first_token_s: float

    @property
    def case(self) -> SpeedCase:
        return SpeedCase(self.cores, self.round_trip_ms)


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
    before = os.sched_getaffinity(0)
    async with open_site(pair) as site:
        for case in missing:
            if time.monotonic() > until_s:
                break
            _pin(0, {DEVICE_CORE})
            _pin(site.cloud.process_id, {CLOUD_CORE if case.cores == CORES[0] else DEVICE_CORE})
            site.set_round_trip(case.round_trip_ms)
            site.forget()
            rows = [await _write(site, case, way, nth, size) for nth in range(size.num_texts) for way in WAYS]
            for row in rows:  # all or none of a case
                file.add(row)
            say(f"{case}: {', '.join(f'{row.way} {row.tokens_per_s:.1f}' for row in rows[-len(WAYS) :])} tokens/s")
    _pin(0, before)


async def _write(site: Site, case: SpeedCase, way: str, nth: int, size: SpeedSize) -> SpeedRow:
    key = TextKey(KINDS[nth % 2], 30 + nth, 0.0)  # chat and code: the least and the most agreement
    arrivals = Arrivals(None)
    report = await site.write(key, way, arrivals.note_text, num_tokens=size.num_tokens)
    later = len(report.tokens) - arrivals.counts[0]
    return SpeedRow(
        *case,
        way=way,
        nth=nth,
        kind=key.kind,
        number=key.number,
        temperature=key.temperature,
        tokens=len(report.tokens),
        tokens_per_s=round(later / (arrivals.times_s[-1] - arrivals.times_s[0]), 3),
        first_token_s=round(arrivals.times_s[0], 4),
    )


def _pin(process_id: int, cores: set[int]) -> None:
    """All threads of a process."""
    if process_id:
        for thread in os.listdir(f"/proc/{process_id}/task"):
            os.sched_setaffinity(int(thread), cores)
    else:
        os.sched_setaffinity(0, cores)


def speed_claims(rows: Iterable[SpeedRow]) -> Iterator[Claim]:
    """Of the worst case: auto over the better of the others, from the second text on, and in the first."""
    cases: dict[SpeedCase, list[SpeedRow]] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(row)
    for suffix, nth in (("", range(1, 1000)), ("_first_text", range(1))):
        speeds, firsts = [], []
        for of_case in cases.values():
            some = [row for row in of_case if row.nth in nth]
            if not some:
                continue
            speeds.append(_best(some, lambda row: row.tokens_per_s, max))
            firsts.append(_best(some, lambda row: row.first_token_s, min))
        if speeds:
            yield Claim(f"auto_over_best_min{suffix}", min(speeds), "x best", len(speeds))
            yield Claim(f"first_token_over_best_max{suffix}", max(firsts), "x best", len(firsts))


def _best(rows: Sequence[SpeedRow], measure: Callable[[SpeedRow], float], best: Callable[..., str]) -> float:
    """Auto's over that of the best other way, in the median of the texts' ratios."""
    ways = dict.fromkeys(row.way for row in rows)
    by_way = {way: [measure(row) for row in rows if row.way == way] for way in ways}
    ours = by_way.pop(AUTO)
    theirs = by_way[best(by_way, key=lambda way: statistics.median(by_way[way]))]
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))
