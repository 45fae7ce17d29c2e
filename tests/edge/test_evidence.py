"""Evidence on demand: the device writes alone until its gate finds a doubt, and there the cloud goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from skydraft.core import (
    AcceptanceRule,
    Evidence,
    Exact,
    MinProb,
    Mode,
    Origin,
    Prompt,
    Rank,
    Rejection,
    SamplingParams,
    SegmentKind,
    ShareLevel,
    TokenSegment,
    TokenSignals,
)
from skydraft.edge.drafter import LoneDrafter
from skydraft.edge.patience import Patience
from skydraft.edge.report import Report, Unasked
from skydraft.errors import CacheOverflow
from skydraft.policies.gate import AlwaysGate, EntropyGate, Gate, NeverGate
from skydraft.policies.way import parse_way
from skydraft.tasks.base import PromptPair
from tests.edge.test_writer import DRAFT, SAMPLING, TARGET, ids, write
from tests.linked import cloud_only, table

BLOCK = 4
LENGTH = 2 * BLOCK  # of what LateGate lets pass
NOWHERE = "ws://127.0.0.1:9"
HEARD = Prompt((TokenSegment((1, 2)), TokenSegment((3,), SegmentKind.EVIDENCE)))
UNSURE: dict[str, Any] = {
    "prompts": PromptPair(HEARD, HEARD),
    "share": ShareLevel.FEATURES,
    "evidence": Evidence.UNSURE,
    "block_length": BLOCK,
}


@dataclass
class LateGate:
    """Escalates the third block and all after it."""

    num_blocks: int = 0

    def escalates(self, signals: Sequence[TokenSignals], token_ids: Sequence[int] = ()) -> bool:
        assert len(signals) == len(token_ids)
        self.num_blocks += 1
        return self.num_blocks > 2


def drafted(rule: AcceptanceRule) -> list[int]:
    """What the draft writes alone; under `rejection` it draws."""
    drafter = LoneDrafter(table(DRAFT), SAMPLING, rule)
    drafter.open(HEARD)
    return list(drafter.draft([], 40, 8).token_ids)


@pytest.mark.parametrize("way", ["wait:5", "pipelined:3", "tree", "free", "auto", "cloud"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("mode", [Mode.HYBRID, Mode.AUTO])
async def test_from_the_first_doubt_on_the_text_is_the_clouds_continuation_of_the_devices_words(
    address: str, way: str, temperature: float, mode: Mode
) -> None:
    sampling = SamplingParams(temperature=temperature, seed=3, max_tokens=40)
    report = await write(address, gate=LateGate(), sampling=sampling, way=parse_way(way), mode=mode, **UNSURE)
    committed = cloud_only(table(DRAFT), sampling, HEARD)[:LENGTH]
    assert ids(report) == cloud_only(table(TARGET), sampling, HEARD, committed)
    assert ids(report) != cloud_only(table(TARGET), sampling, HEARD)
    assert [token.origin is Origin.EDGE for token in report.tokens] == [index < LENGTH for index in range(40)]
    assert report.disclosure.has_evidence
    assert not report.is_cloud_text
    assert report.unasked is None


async def test_a_text_that_the_device_is_unsure_of_from_the_start_is_the_clouds_own(address: str) -> None:
    report = await write(address, gate=AlwaysGate(), **UNSURE)
    assert ids(report) == cloud_only(table(TARGET), SAMPLING, HEARD)
    assert report.is_cloud_text


@pytest.mark.parametrize("rule", [Exact(), Rejection(4, 16), Rank(20), MinProb(0.1)], ids=str)
@pytest.mark.parametrize("mode", [Mode.HYBRID, Mode.AUTO])
async def test_of_a_text_that_the_device_is_sure_of_no_byte_leaves(rule: AcceptanceRule, mode: Mode) -> None:
    report = await write(NOWHERE, gate=NeverGate(), rule=rule, mode=mode, **UNSURE)
    assert ids(report) == drafted(rule)
    assert not report.disclosure.up
    assert report.unasked is Unasked.SURE
    assert not report.is_alone


@pytest.mark.parametrize("rule", [Rank(1), Rank(20), MinProb(0.2)], ids=str)
@pytest.mark.parametrize("max_escalated", [1.0, 0.3])
async def test_under_lenient_rules_it_changes_when_the_evidence_leaves_and_no_word(
    address: str, rule: AcceptanceRule, max_escalated: float
) -> None:
    asked: dict[str, Any] = {"rule": rule, "gate": EntropyGate(1.45), "max_escalated": max_escalated}
    at_once = await write(address, **UNSURE | asked | {"evidence": Evidence.ALWAYS})
    unsure = await write(address, **UNSURE | asked)
    assert unsure.tokens == at_once.tokens
    assert unsure.rounds == at_once.rounds > 0
    assert Origin.EDGE in {token.origin for token in unsure.tokens}


async def test_under_rejection_every_block_is_judged_from_the_first_doubt_on(address: str) -> None:
    report = await write(address, rule=Rejection(4, 16), gate=LateGate(), **UNSURE)
    assert [token.origin is Origin.EDGE for token in report.tokens] == [index < LENGTH for index in range(40)]


async def test_where_the_cloud_is_away_the_device_goes_on_from_its_own_words() -> None:
    report = await write(NOWHERE, gate=LateGate(), patience=Patience("edge", 0), **UNSURE)
    assert ids(report) == cloud_only(table(DRAFT), SAMPLING, HEARD)
    assert report.is_alone
    assert report.unasked is None


async def small_draft(address: str, room: int, gate: Gate) -> Report:
    return await write(address, gate=gate, max_length=3 + room, **UNSURE)


async def test_a_draft_model_without_room_is_no_reason_for_evidence_to_leave(address: str) -> None:
    report = await small_draft(address, 6, NeverGate())
    assert report.ended_early is not None
    assert 4 <= len(report.tokens) <= 7
    assert not report.disclosure.up
    with pytest.raises(CacheOverflow):
        await small_draft(address, -1, NeverGate())


async def test_where_the_evidence_has_left_the_cloud_goes_on_without_the_draft_model(address: str) -> None:
    report = await small_draft(address, LENGTH + BLOCK, LateGate())
    assert len(report.tokens) == 40
    assert report.ended_early is None


async def test_a_device_that_keeps_to_itself_was_not_to_ask(address: str) -> None:
    assert (await write(None, mode=Mode.EDGE)).unasked is None
    assert (await write(None, prompts=PromptPair(HEARD, None))).unasked is Unasked.DEAF
    assert (await write(address)).unasked is None
