"""Texts longer than a slot: what was written is kept; the cloud goes on where only the draft model is too small."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection

from skydraft.config import CloudSettings
from skydraft.core import Exact, MinProb, Mode, Objective, Origin, Prompt, Rank, Rejection, TokenSegment
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.patience import Patience
from skydraft.edge.report import Report
from skydraft.edge.writer import Writer
from skydraft.errors import CacheOverflow, CloudFault, TransportError
from skydraft.policies.gate import NeverGate
from skydraft.policies.way import parse_way
from skydraft.protocol import codec, messages
from skydraft.protocol.messages import FaultCode
from skydraft.tasks.base import PromptPair
from tests.cloud.running import running
from tests.edge.test_cloud_client import cloud, opened
from tests.edge.test_writer import DRAFT, JOB, SAMPLING, TARGET, changed, ids
from tests.linked import PROMPT, cloud_only, table

ROOM = 12
SMALL = 3 + ROOM  # the prompt has three tokens
LONGEST = replace(SAMPLING, max_tokens=SMALL)  # that a small cloud does not refuse before it knows the prompt
NOWHERE = "ws://127.0.0.1:9"
WAYS = ["wait:5", "pipelined:3", "prepared:4", "tree", "free", "auto", "cloud"]
WITHOUT_EVIDENCE = Prompt((TokenSegment((1, 2)),))


@pytest.fixture(scope="module")
def small_cloud() -> Iterator[str]:
    with running(CloudSettings(port=0), partial(table, TARGET, max_length=SMALL)) as served:
        yield served.address


async def write(url: str | None, draft_length: int = 4096, **changes: Any) -> tuple[Report, list[str]]:
    """The report, and what was said meanwhile."""
    said: list[str] = []
    writer = Writer(table(DRAFT, max_length=draft_length))
    job = changed(JOB, address=None if url is None else CloudAddress(url), **changes)
    try:
        return await writer.write(job, lambda _: None, said.append), said
    finally:
        writer.close()


def truth(max_tokens: int = 40) -> list[int]:
    return cloud_only(table(TARGET), SAMPLING)[:max_tokens]


@pytest.mark.parametrize("way", WAYS)
async def test_a_text_that_the_cloud_has_no_room_for_ends_there_and_says_so(small_cloud: str, way: str) -> None:
    report, _ = await write(small_cloud, way=parse_way(way), sampling=LONGEST)
    assert ids(report) == truth(ROOM)
    assert report.ended_early is not None
    assert "room for 12 tokens of text and 15 were asked for" in report.ended_early


@pytest.mark.parametrize("mode", [Mode.CLOUD, Mode.AUTO])
async def test_it_ends_there_in_the_other_modes_with_a_cloud_too(small_cloud: str, mode: Mode) -> None:
    report, _ = await write(small_cloud, mode=mode, sampling=LONGEST)
    assert ids(report) == truth(ROOM)
    assert report.ended_early is not None


@pytest.mark.parametrize("rule", [Rank(20), Rank(1), MinProb(0.05), Rejection(4, 16)])
@pytest.mark.parametrize("room", [1, 2, 5, 12])
async def test_it_ends_there_under_every_rule(rule: Rank | MinProb | Rejection, room: int) -> None:
    with running(CloudSettings(port=0), partial(table, TARGET, max_length=3 + room)) as served:
        report, _ = await write(served.address, rule=rule, sampling=replace(SAMPLING, max_tokens=3 + room))
    assert len(report.tokens) == room
    assert report.ended_early is not None


async def test_a_text_that_just_fits_has_not_ended_early(small_cloud: str) -> None:
    for mode in (Mode.CLOUD, Mode.HYBRID):
        sampling = replace(SAMPLING, max_tokens=ROOM)
        report, _ = await write(small_cloud, mode=mode, sampling=sampling)
        assert (ids(report), report.ended_early) == (truth(ROOM), None)


async def test_a_text_that_ends_by_itself_before_the_slot_is_full_has_not_ended_early(small_cloud: str) -> None:
    sampling = replace(LONGEST, end_ids=(truth(ROOM)[-1],))
    report, _ = await write(small_cloud, mode=Mode.CLOUD, sampling=sampling)
    assert report.tokens[-1].token_id in sampling.end_ids
    assert report.ended_early is None


@pytest.mark.parametrize("mode", [Mode.CLOUD, Mode.HYBRID, Mode.AUTO])
async def test_a_prompt_that_leaves_no_room_for_a_text_is_refused(small_cloud: str, mode: Mode) -> None:
    prompt = Prompt((TokenSegment((1,) * SMALL),))
    with pytest.raises(CloudFault, match="has 15 tokens and a slot of this cloud has room for 15") as refused:
        await write(small_cloud, mode=mode, prompts=PromptPair(prompt, prompt), sampling=LONGEST)
    assert refused.value.code == FaultCode.LIMIT


async def test_a_text_that_the_device_alone_has_no_room_for_ends_there_and_says_so() -> None:
    report, _ = await write(None, SMALL, mode=Mode.EDGE)
    text = cloud_only(table(DRAFT), SAMPLING)
    assert ids(report) == text[: len(report.tokens)]
    assert len(report.tokens) == ROOM + 1  # the last one need not be read
    assert report.ended_early is not None
    assert "no room for more" in report.ended_early


async def test_a_prompt_that_the_device_alone_has_no_room_for_is_refused() -> None:
    with pytest.raises(CacheOverflow, match="has 3 tokens and a slot has room for 2"):
        await write(None, 2, mode=Mode.EDGE)


async def test_a_refusal_in_the_middle_keeps_what_was_written() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(opened())
        await socket.send(codec.encode(messages.Tokens(0, bytes([1] * 6))))
        await socket.send(codec.encode(messages.Fault(FaultCode.LIMIT, "slot 3 is full", 0)))
        await socket.wait_closed()

    async with cloud(handler) as url:
        report, _ = await write(url, mode=Mode.CLOUD)
    assert ids(report) == [1] * 6
    assert report.ended_early == "the cloud refused: slot 3 is full"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("draft_length", [2, 3, 4, SMALL])
async def test_the_cloud_goes_on_where_only_the_draft_has_no_room(address: str, way: str, draft_length: int) -> None:
    report, said = await write(address, draft_length, way=parse_way(way))
    assert (ids(report), report.ended_early) == (truth(), None)
    if draft_length == 2:
        assert [sentence for sentence in said if "no room for this text" in sentence] == said
        assert len(said) == 1 or way in ("cloud", "auto")  # which may find that drafts do not pay


@pytest.mark.parametrize("rule", [Rank(20), Rejection(4, 16), Exact()])
@pytest.mark.parametrize("draft_length", [2, 4, SMALL])
@pytest.mark.parametrize("mode", [Mode.HYBRID, Mode.AUTO])
async def test_the_cloud_goes_on_under_rules_that_judge_block_by_block(
    address: str, rule: Rank | Rejection | Exact, draft_length: int, mode: Mode
) -> None:
    how = parse_way("wait:4")  # with credit a fast cloud may write all before the draft is full
    report, said = await write(address, draft_length, rule=rule, mode=mode, way=how)
    assert (len(report.tokens), report.ended_early) == (40, None)
    assert report.tokens[-1].origin is Origin.CLOUD
    assert "no room for this text" in said[0]


@pytest.mark.parametrize(
    "kept",
    [
        {"prompts": PromptPair(WITHOUT_EVIDENCE, PROMPT)},
        {"gate": NeverGate()},
        {"max_escalated": 0.5},
        {"mode": Mode.AUTO, "objective": Objective.PRIVACY},
    ],
)
async def test_the_cloud_does_not_go_on_where_it_sees_less_or_is_not_to_be_asked(
    address: str, kept: dict[str, Any]
) -> None:
    report, _ = await write(address, SMALL, rule=Rank(20), **kept)
    assert ROOM - 5 < len(report.tokens) <= ROOM + 1
    assert report.ended_early is not None
    with pytest.raises(CacheOverflow):
        await write(address, 2, rule=Rank(20), **kept)


async def test_where_the_cloud_is_away_and_the_draft_full_the_text_ends_with_what_there_is() -> None:
    report, _ = await write(NOWHERE, SMALL, patience=Patience("edge", 0))
    assert ids(report) == cloud_only(table(DRAFT), SAMPLING)[: ROOM + 1]
    assert report.ended_early is not None
    with pytest.raises(TransportError):
        await write(NOWHERE, 2, patience=Patience("edge", 0))
