"""The bench that compares texts however they are drafted, on tables."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from bench import gpu, invariance
from skydraft.core import Prompt, TokenSegment
from skydraft.engines.base import Array, EngineLimits, Extension, PromptChunk
from skydraft.engines.emulated.table import TableEngine

PROMPTS = [Prompt((TokenSegment((1 + number, 2)),)) for number in range(5)]
LIMITS = EngineLimits(num_slots=4, max_length=64)
GAP = 0.25


class Rounding(TableEngine):
    """Token 5 is GAP below token 4 after every text, and as much above it in a pass that judges what is offered."""

    def __init__(self, is_spoilt: bool) -> None:
        table = np.zeros((16, 16), dtype=np.float32)
        table[:, 4], table[:, 5] = 3.0, 3.0 - GAP
        super().__init__(table, limits=LIMITS)
        self._is_spoilt = is_spoilt

    def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Array]:
        logits = super().extend(extensions)
        widths = [len(item.token_ids) if isinstance(item, Extension) else 1 for item in extensions]
        if not self._is_spoilt:
            return logits
        lifted = (np.arange(16) == 5) * np.float32(2 * GAP)
        return [rows + lifted if width > 3 else rows for rows, width in zip(logits, widths, strict=True)]


def test_texts_of_invariant_rows_are_equal_in_every_way() -> None:
    alone, found = invariance.compare(Rounding(is_spoilt=False), PROMPTS, 12)
    assert alone == [[4] * 12] * 5
    assert found == {"again": [], "wait:5": [], "tree": []}


def test_the_first_difference_of_each_text_is_found_with_its_gap() -> None:
    _, found = invariance.compare(Rounding(is_spoilt=True), PROMPTS, 12)
    assert found["again"] == []
    for way in ("wait:5", "tree"):
        assert [difference.prompt for difference in found[way]] == [0, 1, 2, 3, 4]
        assert all(difference.gap == GAP for difference in found[way] if difference.position < 4)
    told = {claim.claim: claim.value for claim in invariance.claims("on", _content(found))}
    assert told["equal_share.on.again"] == 1
    assert told["equal_share.on.tree"] == 0
    assert told["largest_gap.on.tree"] == GAP


def _content(found: dict[str, list[invariance.Difference]]) -> dict[str, object]:
    ways = {way: [difference._asdict() for difference in differences] for way, differences in found.items()}
    return {"num_texts": 5, "num_tokens": 60, "total_s": 1.0, "ways": ways}


def test_both_flags_are_measured_in_processes_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--invariance", "table:vocab=64,order=2", "--device", "cpu", "--dtype", "float32", "--tiny", "--json"]
    assert gpu.main([*arguments, "--prompts", "3", "--tokens", "9"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    values = {claim["claim"]: claim["value"] for claim in told}
    for flag in ("on", "off"):
        assert [values[f"equal_share.{flag}.{way}"] for way in ("again", "wait:5", "tree")] == [1, 1, 1]
        assert values[f"total_s.{flag}"] > 0
