from __future__ import annotations

from dataclasses import dataclass, field

from bench.network.rows import Cell, Key, Lateness, Row
from bench.network.runner import LATE_SHARE, MAX_ATTEMPTS, Selection, _shares, measure, rounds_to_do
from tests.bench.network_rows import PA_50, row

SELECTION = Selection(["P-A", "P-C"], ["q4"], [0.0], [0, 50], [10], ["cloud", "auto"], 2, 64)
KEY = Key(PA_50, "auto", 0, 64)


def test_each_run_passes_all_cells_before_the_next_begins() -> None:
    rounds = [item for item in rounds_to_do(SELECTION, set()) if item.profile == "P-A"]
    assert [(item.keys[0].run, item.keys[0].cell.round_trip_ms) for item in rounds] == [
        (0, 0),
        (0, 50),
        (1, 0),
        (1, 50),
    ]
    assert all([key.mode for key in item.keys] == ["cloud", "auto"] for item in rounds)


def test_a_profile_with_a_link_of_its_own_is_measured_with_that() -> None:
    assert [cell.round_trip_ms for cell in SELECTION.cells("P-C")] == [120]


def test_what_is_in_the_file_is_not_measured_again() -> None:
    everything = [key for item in rounds_to_do(SELECTION, set()) for key in item.keys]
    left = rounds_to_do(SELECTION, {key for key in everything if key.mode == "cloud" or key.run == 0})
    assert [key for item in left for key in item.keys] == [
        key for key in everything if key.mode == "auto" and key.run == 1
    ]
    assert rounds_to_do(SELECTION, set(everything)) == []


def test_all_runs_of_a_cell_go_to_one_worker() -> None:
    shares = _shares(rounds_to_do(SELECTION, set()), 2)
    cells: list[set[Cell]] = [{item.keys[0].cell for item in share} for share in shares]
    assert cells[0].isdisjoint(cells[1])
    assert sum(map(len, shares)) == len(rounds_to_do(SELECTION, set()))


@dataclass
class Late:
    """A device whose passes are late by these shares of the time, one text after the other."""

    shares: list[float]
    keys: list[Key] = field(default_factory=list)

    async def measure(self, key: Key) -> Row:
        self.keys.append(key)
        return row(key.mode, cloud=Lateness(60, 1, 2.0 * self.shares[len(self.keys) - 1]))


async def _measured(shares: list[float]) -> Row:
    device = Late(shares)
    return await measure(device, KEY)  # type: ignore[arg-type]


async def test_a_text_that_kept_its_pace_is_measured_once() -> None:
    assert (await _measured([LATE_SHARE / 2])).attempts == 1


async def test_a_late_text_is_measured_again_until_it_keeps_its_pace() -> None:
    text = await _measured([0.2, LATE_SHARE / 2])
    assert (text.attempts, text.late_share) == (2, LATE_SHARE / 2)


async def test_the_best_of_the_attempts_counts_where_all_were_late() -> None:
    text = await _measured([0.2, 0.05, 0.1])
    assert (text.attempts, text.late_share) == (MAX_ATTEMPTS, 0.05)
