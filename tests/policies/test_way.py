from __future__ import annotations

import pytest

from skydraft.errors import ConfigError
from skydraft.policies.way import FREE, TREE, parse_way


def test_auto_is_left_to_measurement() -> None:
    assert parse_way("auto") is None


@pytest.mark.parametrize(
    ("text", "in_flight", "is_eager"), [("wait:5", 1, False), ("pipelined:5", 4, True), ("prepared:5", 1, True)]
)
def test_chains_differ_in_what_happens_while_an_answer_is_awaited(text: str, in_flight: int, is_eager: bool) -> None:
    way = parse_way(text)
    assert way is not None
    assert (way.block_length, way.width, way.has_credit) == (5, 1, False)
    assert (way.max_in_flight, way.is_eager) == (in_flight, is_eager)


def test_only_free_running_gives_credit() -> None:
    assert FREE.has_credit
    assert not TREE.has_credit


@pytest.mark.parametrize(
    "text", ["", "wait", "wait:0", "wait:65", "wait:x", "tree:3", "fast", "wait: 5", "wait:1_0", "wait:\u0665"]
)
def test_what_is_no_way_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(ConfigError, match="expected one of auto, wait:N"):
        parse_way(text)
