"""Rows that no bench measured."""

from __future__ import annotations

from bench.network.rows import Cell, Lateness, Row, Wire

PA_50 = Cell("P-A", "q4", 0.0, 50, 10)


def row(mode: str, run: int = 0, seconds: float = 2.0, cell: Cell = PA_50, **more: object) -> Row:
    """A text of 64 tokens."""
    facts: dict[str, object] = {
        "first_token_s": 0.2,
        "num_first": 1,
        "rounds": 10,
        "positions": 80,
        "up": {"prompt": 62, "drafts": 192},
        "down": {"verdicts": 64},
        "digest": "same",
        "cloud": Lateness(60, 0, 0.001),
        "wire": Wire(3200, 3200, 630, 630),
        **more,
    }
    return Row(cell=cell, mode=mode, run=run, prompt=run, seed=1000 + run, tokens=64, seconds=seconds, **facts)  # type: ignore[arg-type]
