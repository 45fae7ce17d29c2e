"""Rows grouped and summed up."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from bench.network.rows import CLOUD, EDGE, NAIVE, Cell, Row

FIXED = "wait:"  # before a length: stop-and-wait
BEST_FIXED = "wait:best"


class Place(NamedTuple):
    """A cell and a mode."""

    cell: Cell
    mode: str


Runs = dict[int, Row]


class Results:
    """Rows by cell, mode and run.

    Args:
        rows: of one kind.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._runs: dict[Place, Runs] = {}
        for row in rows:
            self._runs.setdefault(Place(row.cell, row.mode), {})[row.run] = row

    @property
    def cells(self) -> list[Cell]:
        unique = dict.fromkeys(place.cell for place in self._runs)
        return sorted(unique, key=lambda cell: (cell.profile, cell.temperature, cell.draft, *_link(cell)))

    def modes(self, cell: Cell) -> list[str]:
        return [place.mode for place in self._runs if place.cell == cell]

    def runs(self, cell: Cell, mode: str) -> Runs:
        """Of a mode, by number; of BEST_FIXED those of the length that is the fastest in the median."""
        return self._runs.get(Place(cell, self.best_fixed(cell) if mode == BEST_FIXED else mode), {})

    def best_fixed(self, cell: Cell) -> str:
        lengths = [mode for mode in self.modes(cell) if mode.startswith(FIXED)]
        return max(lengths, key=lambda mode: self.median(cell, mode, lambda row: row.flow) or 0.0, default=BEST_FIXED)

    def median(self, cell: Cell, mode: str, measure: Callable[[Row], float]) -> float | None:
        """Over the runs; None where there are none."""
        values = [measure(row) for row in self.runs(cell, mode).values()]
        return statistics.median(values) if values else None

    def hybrids(self, cell: Cell) -> list[str]:
        """The fixed hybrid modes that were measured."""
        return [mode for mode in self.modes(cell) if mode in FIXED_HYBRIDS or mode.startswith(FIXED)]


FIXED_HYBRIDS = ("pipelined:4", "prepared:4", "prepared:5", "tree", "free")


def _link(cell: Cell) -> tuple[float, float]:
    return cell.round_trip_ms, cell.rate_mbps


COLUMNS: Sequence[tuple[str, Callable[[Row], float], str]] = (
    ("tokens/s", lambda row: row.flow, ".1f"),
    ("of the whole", lambda row: row.whole, ".1f"),
    ("first token s", lambda row: row.first_token_s, ".3f"),
    ("positions/token", lambda row: row.positions / row.tokens, ".2f"),
    ("up B/token", lambda row: row.up_bytes / row.tokens, ".1f"),
    ("down B/token", lambda row: row.down_bytes / row.tokens, ".1f"),
    ("late", lambda row: 100 * row.late_share, ".1f%"),
)


def print_tables(results: Results, limits: Results, console: Console) -> None:
    """One table for each cell.

    Args:
        limits: in virtual time; those of the oracles among them.
    """
    for cell in results.cells:
        modes = results.modes(cell)
        table = Table(title=str(cell), title_justify="left", box=None, pad_edge=False)
        table.add_column("mode")
        for name in (*(name for name, _, _ in COLUMNS), "x cloud", "of its oracle", "runs"):
            table.add_column(name, justify="right")
        for mode in modes:
            table.add_row(mode, *_cells(results, limits, cell, mode))
        console.print(table)
        console.print()


def _cells(results: Results, limits: Results, cell: Cell, mode: str) -> list[str]:
    texts = []
    for _, measure, form in COLUMNS:
        value = results.median(cell, mode, measure)
        texts.append(f"{value:{form.removesuffix('%')}}{'%' if form.endswith('%') else ''}")
    ratio = ratios(results.runs(cell, mode), results.runs(cell, CLOUD))
    texts.append(f"{statistics.median(ratio):.2f}" if ratio else "")
    share = ratios(results.runs(cell, mode), limits.runs(cell, f"oracle {mode}"))
    texts.append(f"{statistics.median(share):.2f}" if share and mode not in (CLOUD, EDGE, NAIVE) else "")
    return [*texts, str(len(results.runs(cell, mode)))]


def ratios(ours: Runs, theirs: Runs, measure: Callable[[Row], float] = lambda row: row.flow) -> list[float]:
    """Of speeds, run by run: a bad minute is in both."""
    return [measure(ours[run]) / measure(theirs[run]) for run in ours if run in theirs]
