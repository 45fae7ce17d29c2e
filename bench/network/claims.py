"""What the rows say of what was aimed at."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from bench.claims import Claim, machine
from bench.network.rows import AUTO, CLOUD, Cell, Row
from bench.network.tables import Results, Runs, ratios

LEAST_RUNS = 5
CHAIN, PREPARED = "wait:5", "prepared:5"
STRONGEST = {CLOUD, "tree", "free"}  # without these, a cell says nothing of the best


class Aim(NamedTuple):
    """least, most: where a claim should lie; None: no bound."""

    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        return f"at least {self.least:g}" if self.most is None else f"at most {self.most:g}"

    def is_met(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


AIMS = {
    "never_loses_min": Aim(least=0.97),
    "first_token_max": Aim(most=1.05),
    "pa_50": Aim(least=1.3),
    "pb_50": Aim(least=2.0),
    "pc": Aim(least=2.5),
    "pa_100": Aim(least=1.0),
    "pb_100": Aim(least=1.5),
    "oracle_fraction_pa_50": Aim(least=0.8),
    "payload_up_per_token": Aim(most=4.0),
    "payload_down_per_token": Aim(most=1.5),
    "cost_waste_pa_50": Aim(most=0.45),
    "policy_us": Aim(most=100.0),
}

_WINS = {"pa_50": ("P-A", 50), "pb_50": ("P-B", 50), "pc": ("P-C", 120), "pa_100": ("P-A", 100), "pb_100": ("P-B", 100)}


def claims(results: Results, limits: Results) -> Iterator[Claim]:
    """In the order of AIMS; what was not measured is left out.

    Args:
        results: of real runs. limits: in virtual time.
    """
    yield from _never_loses(results)
    for name, (profile, round_trip_ms) in _WINS.items():
        cells = _cells(results, profile, round_trip_ms)
        for suffix, measure in (("", lambda row: row.flow), ("_whole", lambda row: row.whole)):
            yield from _least(name + suffix, cells, partial(_over_cloud, results, measure))
    at_pa_50 = _cells(results, "P-A", 50)
    oracle = f"oracle {AUTO}"
    yield from _least(
        "oracle_fraction_pa_50", at_pa_50, lambda cell: ratios(results.runs(cell, AUTO), limits.runs(cell, oracle))
    )
    yield from _bytes(results, at_pa_50)
    yield from _virtual(limits)


def _never_loses(results: Results) -> Iterator[Claim]:
    """Over all cells with enough runs of the strongest modes: skydraft against the mode that is best in the median."""
    speeds, firsts = [], []
    for cell in results.cells:
        modes = [CLOUD, *results.hybrids(cell)]
        others = [results.runs(cell, mode) for mode in modes]
        ours = results.runs(cell, AUTO)
        runs = [run for run in ours if all(run in other for other in others)]
        if len(runs) < LEAST_RUNS or not STRONGEST.issubset(modes):
            continue
        fastest = max(others, key=lambda other: statistics.median(row.flow for row in other.values()))
        soonest = min(others, key=lambda other: statistics.median(row.first_token_s for row in other.values()))
        speeds.append(statistics.median(ratios(ours, fastest)))
        firsts.append(statistics.median(ratios(ours, soonest, lambda row: row.first_token_s)))
    if speeds:
        yield Claim("never_loses_min", min(speeds), "x best", len(speeds))
        yield Claim("first_token_max", max(firsts), "x best", len(firsts))


def _cells(results: Results, profile: str, round_trip_ms: float) -> list[Cell]:
    """Of a profile with the 4-bit draft at the usual rate, one for each temperature."""
    return [
        cell
        for cell in results.cells
        if (cell.profile, cell.draft, cell.round_trip_ms, cell.rate_mbps) == (profile, "q4", round_trip_ms, 10)
    ]


def _over_cloud(results: Results, measure: Callable[[Row], float], cell: Cell) -> list[float]:
    """Skydraft's default over the cloud alone, run by run."""
    return ratios(results.runs(cell, AUTO), results.runs(cell, CLOUD), measure)


def _least(name: str, cells: list[Cell], measure: Callable[[Cell], list[float]]) -> Iterator[Claim]:
    """The median at each temperature, and the least of them as the claim."""
    medians: dict[Cell, Claim] = {}
    for cell in cells:
        values = measure(cell)
        if len(values) >= LEAST_RUNS:
            warmth = "greedy" if cell.temperature == 0 else f"at_{cell.temperature:g}"
            medians[cell] = Claim(f"{name}_{warmth}", statistics.median(values), "x", len(values))
    if medians:
        least = min(medians.values(), key=lambda claim: claim.value)
        yield Claim(name, least.value, "x", least.n)
        yield from medians.values()


def _bytes(results: Results, cells: list[Cell]) -> Iterator[Claim]:
    """Payload of chains, the greater of the temperatures, the prompt not counted; what crosses the wire with all."""
    for suffix, mode in (("", CHAIN), ("_prepared", PREPARED), ("_auto", AUTO), ("_cloud", CLOUD)):
        all_runs = [results.runs(cell, mode) for cell in cells]
        for name, measure in _BYTES.items():
            yield from _greatest(f"{name}{suffix}", all_runs, measure)


_BYTES: dict[str, Callable[[Row], float | None]] = {
    "payload_up_per_token": lambda row: row.up_bytes / row.tokens,
    "payload_down_per_token": lambda row: row.down_bytes / row.tokens,
    "wire_bytes_per_token": lambda row: None if row.wire is None else (row.wire.up + row.wire.down) / row.tokens,
    "wire_steady_per_token": lambda row: (
        None if row.wire is None else (row.wire.steady_up + row.wire.steady_down) / max(1, row.tokens - row.num_first)
    ),
}


def _greatest(
    name: str, all_runs: list[Runs], measure: Callable[[Row], float | None], unit: str = "bytes"
) -> Iterator[Claim]:
    medians = []
    for runs in all_runs:
        values = [value for value in map(measure, runs.values()) if value is not None]
        if len(values) >= LEAST_RUNS:
            medians.append((statistics.median(values), len(values)))
    if medians:
        value, count = max(medians)
        yield Claim(name, value, unit, count)


def _virtual(limits: Results) -> Iterator[Claim]:
    """What needs no socket: what objective cost wastes, and how long deciding takes."""
    cells = _cells(limits, "P-A", 50)
    wastes = [limits.runs(cell, "cost") for cell in cells]
    yield from _greatest("cost_waste_pa_50", wastes, lambda row: row.positions / row.tokens - 1, "a token")
    yield from _greatest("policy_us", [limits.runs(cell, AUTO) for cell in cells], lambda row: row.policy_us, "us")


def show(found: list[Claim], as_json: bool) -> None:
    """Print claims with whether their aim was met; as JSON, one object a line, without."""
    if not as_json:
        print(f"# paced: {machine()}")
    for claim in found:
        if as_json:
            print(json.dumps(claim._asdict()))
        else:
            print(f"{claim.claim:32} {claim.value:10.4g} {claim.unit:8} n={claim.n:<3} {_word(claim)}".rstrip())


def _word(claim: Claim) -> str:
    aim = AIMS.get(claim.claim)
    if aim is None:
        return ""
    return f"met: {aim}" if aim.is_met(claim.value) else f"MISSED: {aim}"
