"""A gateway as a process among apps that flood it; `python -m bench.gateway_floods` measures all floods for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.gateway_floods import FLOODS, STRANGER, flood
from skydraft.cloud.access.keys import KeyGrant, add_key

SECONDS = 1.0
MAX_BYTES = 400e6  # of a process that takes 90 MB by itself


@pytest.mark.parametrize("name", ["slow_bodies", "half_bodies", "values", "cancels", "deaf"])
def test_an_honest_app_gets_its_texts_and_nothing_fails(tmp_path: Path, name: str) -> None:
    keys = tmp_path / "keys.toml"
    stranger, honest = add_key(keys, "stranger", STRANGER), add_key(keys, "honest", KeyGrant())
    flooded, num_tracebacks = flood(name, stranger, honest, ("--keys", str(keys)), SECONDS)
    assert name in FLOODS
    assert flooded.errors == []
    assert len(flooded.flooded_s) >= 2
    assert flooded.rss_bytes < MAX_BYTES
    assert num_tracebacks == 0
