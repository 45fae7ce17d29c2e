"""The closed-form model of policies/throughput, on the same scale as measured texts."""

from __future__ import annotations

import statistics

from bench.network.profiles import PROFILES
from bench.network.rows import AUTO, CLOUD, Cell
from bench.network.tables import Results
from skydraft.policies.throughput import Conditions, free_running_tokens_per_s
from skydraft.policies.way import FREE


def model_tokens_per_s(limits: Results, cell: Cell) -> float | None:
    """Of a whole text drafted freely; None where nothing was simulated to take the run length from.

    The model speaks of a text under way: the first token comes when the cloud's does.
    """
    ours, cloud = limits.runs(cell, AUTO), limits.runs(cell, CLOUD)
    lengths = [row.run_length for row in ours.values() if row.run_length is not None]
    if not lengths or not cloud:
        return None
    draft, target = PROFILES[cell.profile].draft_pace, PROFILES[cell.profile].cloud_pace
    conditions = Conditions(
        draft_s=draft.pass_s(FREE.width),
        verify_s=target.pass_s(1 + FREE.width),
        step_s=target.pass_s(1),
        round_trip_s=cell.round_trip_ms / 1000,
        run_length=statistics.median(lengths),
    )
    num_tokens = statistics.median(row.tokens for row in cloud.values())
    first_s = statistics.median(row.first_token_s for row in cloud.values())
    return num_tokens / (first_s + (num_tokens - 1) / free_running_tokens_per_s(conditions))
