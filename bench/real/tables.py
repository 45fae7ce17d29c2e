"""Rows of virtual time as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.network.grid import LOCATED
from bench.network.rows import AUTO, CLOUD
from bench.real.virtual import FIXED, PACES, VirtualRow


def print_tables(rows: Sequence[VirtualRow], console: Console) -> None:
    """One for each profile: speed over the cloud alone, greedy / sampled."""
    by_place: dict[tuple[str, float, str], dict[float, dict[str, VirtualRow]]] = {}
    for row in rows:
        case = row.case
        place = by_place.setdefault((case.profile, case.round_trip_ms, case.kind), {})
        place.setdefault(case.temperature, {})[row.mode] = row
    for name in PACES:
        places = {place: ways for place, ways in by_place.items() if place[0] == name}
        if not places:
            continue
        profile = PACES[name]
        title = f"{name}: {profile.what}, draft step {profile.draft_ms:g} ms, cloud step {profile.cloud_ms:g} ms"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for heading in ("ms", "kind", "cloud tokens/s", "draft in the cloud", "best fixed way", "auto", "auto's first"):
            table.add_column(heading, justify="right")
        for (_, round_trip_ms, kind), by_temperature in places.items():
            table.add_row(f"{round_trip_ms:g}", kind, *_cells(list(by_temperature.values())))
        console.print(table)
        console.print()


def _cells(sides: list[dict[str, VirtualRow]]) -> list[str]:
    """Each as greedy / sampled."""
    best = [max((ways[mode] for mode in FIXED if mode in ways), key=lambda row: row.over_cloud) for ways in sides]
    return [
        " / ".join(f"{ways[CLOUD].tokens_per_s:.1f}" for ways in sides),
        " / ".join(f"{ways[LOCATED].over_cloud:.2f}" for ways in sides),
        " / ".join(f"{row.over_cloud:.2f} ({row.mode})" for row in best),
        " / ".join(f"{ways[AUTO].over_cloud:.2f}" for ways in sides),
        " / ".join(f"{ways[AUTO].first_token_s / ways[CLOUD].first_token_s:.2f}" for ways in sides),
    ]
