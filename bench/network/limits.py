"""The closed-form model of policies/throughput, on the same scale as measured texts."""

from __future__ import annotations

import statistics

from bench.network.profiles import PROFILES
from bench.network.rows import AUTO, Cell
from bench.network.tables import Results
from skydraft.policies.throughput import Conditions, free_running_tokens_per_s
from skydraft.policies.way import FREE


def model_tokens_per_s(limits: Results, cell: Cell) -> float | None:
    """Of a text under way that is drafted freely; None where nothing was simulated to take the run length from."""
    lengths = [row.run_length for row in limits.runs(cell, AUTO).values() if row.run_length is not None]
    if not lengths:
        return None
    draft, target = PROFILES[cell.profile].draft_pace, PROFILES[cell.profile].cloud_pace
    conditions = Conditions(
        draft_s=draft.pass_s(FREE.width),
        verify_s=target.pass_s(1 + FREE.width),
        step_s=target.pass_s(1),
        round_trip_s=cell.round_trip_ms / 1000,
        run_length=statistics.median(lengths),
    )
    return free_running_tokens_per_s(conditions)
