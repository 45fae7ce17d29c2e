"""A live cloud among strangers who send it anything; `python -m bench.soak --fuzz` is the same with 100,000 frames."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.fuzz import MODEL, FuzzResult, cloud_flags, fuzz, make_keys
from bench.observed import observed_cloud

NUM_FRAMES = 2000
# An allocator fills up at first (10 MB here); 20,000 bytes kept of each frame would be twice this.
MAX_GROWTH_BYTES = 20e6


class Fuzzed(NamedTuple):
    result: FuzzResult
    faults: dict[str, int]
    log: str
    num_tracebacks: int


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    keys = make_keys(Path(tmp_path_factory.mktemp("keys")))
    with observed_cloud(MODEL, *cloud_flags(keys)) as cloud:
        result = asyncio.run(fuzz(cloud, keys, NUM_FRAMES, seed=7))
        yield Fuzzed(result, cloud.faults(), cloud.log, cloud.num_tracebacks)


def test_whatever_comes_is_answered_or_ends_its_connection_with_a_reason(fuzzed: Fuzzed) -> None:
    assert fuzzed.result.failures == []
    assert fuzzed.result.num_frames >= NUM_FRAMES
    assert fuzzed.result.num_refused > NUM_FRAMES / 20


def test_a_device_beside_the_strangers_writes_its_texts(fuzzed: Fuzzed) -> None:
    assert fuzzed.result.num_texts >= 3
    assert fuzzed.result.num_wrong == 0


def test_nothing_ends_in_a_traceback(fuzzed: Fuzzed) -> None:
    assert fuzzed.num_tracebacks == 0, fuzzed.log
    assert "internal" not in fuzzed.faults
    assert {"protocol", "limit", "vocabulary", "prompt"} <= fuzzed.faults.keys()


def test_when_the_strangers_have_gone_nothing_of_them_is_kept(fuzzed: Fuzzed) -> None:
    before, after = fuzzed.result.samples[1], fuzzed.result.after
    assert after is not None
    assert (after.num_sessions, after.num_connections) == (0, 0)
    assert after.rss_bytes - before.rss_bytes < MAX_GROWTH_BYTES
