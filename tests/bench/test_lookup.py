"""Drafts that are looked up, on recorded texts of the real target, in virtual time."""

from __future__ import annotations

import json

import msgspec
import pytest

from bench import lookup
from bench.lookup import QUOTED, QuotedText, claims, measure, speed, write_all
from bench.network.profiles import BlockTimes, Sides


@pytest.fixture(scope="module")
def texts() -> list[QuotedText]:
    return msgspec.json.decode(QUOTED.read_bytes(), type=list[QuotedText])


def test_each_prompt_has_a_text_at_each_temperature(texts: list[QuotedText]) -> None:
    prompts = [json.loads(line) for line in lookup.PROMPTS.read_text().splitlines()]
    assert [(text.number, text.temperature) for text in texts] == [
        (number, temperature) for number in range(len(prompts)) for temperature in (0.0, 0.8)
    ]


def test_what_is_looked_up_is_as_fast_as_was_measured_and_never_slower_than_the_cloud(texts: list[QuotedText]) -> None:
    rows = list(measure(texts, ["P-A"], [50]))
    (claim,) = claims(rows, len(texts))
    assert claim.value == min(row.over_cloud for row in rows)
    assert claim.value >= 2
    assert min(row.least_over_cloud for row in rows) >= 1


def test_where_a_position_costs_a_token_hardly_anything_is_offered(texts: list[QuotedText]) -> None:
    on_cpu = Sides(BlockTimes([(1, 44), (2, 86)]), BlockTimes([(1, 59), (2, 106), (5, 256), (8, 475)], prompt_ms=20.5))
    looked_up, alone = (write_all(texts[:4], on_cpu, 20, way) for way in (True, False))
    assert speed(looked_up) >= 0.97 * speed(alone)
