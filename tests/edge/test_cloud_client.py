"""Clouds that misbehave, in virtual time: nothing hangs, nothing leaks, and every end is one sentence."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from skydraft.cloud.session_registry import SessionRegistry
from skydraft.config import CloudSettings
from skydraft.core import Mode, Origin, Prompt, Rank, SamplingParams, SegmentKind, TokenSegment
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.mismatch import explain_mismatch
from skydraft.edge.patience import Patience
from skydraft.edge.report import Report
from skydraft.edge.writer import Writer
from skydraft.engines.base import Engine
from skydraft.engines.emulated.paced import Pace
from skydraft.errors import (
    CacheOverflow,
    CloudFault,
    DisclosureError,
    RemoteProtocolError,
    TransportError,
    VocabularyMismatch,
)
from skydraft.policies.way import chain
from skydraft.protocol import codec, messages, packing
from skydraft.protocol.messages import FaultCode
from skydraft.tasks.base import PromptPair
from tests.edge.test_writer import DRAFT, JOB, RANDOM_DRAFT, TARGET, changed
from tests.linked import PROMPT, table
from tests.virtual_cloud import in_pace, virtual_cloud
from tests.virtual_time import in_virtual_time

VOCABULARY = table(TARGET).vocabulary
NOTES = Prompt((TokenSegment((1, 2), SegmentKind.EVIDENCE),))
MARK = messages.VocabularyMark(VOCABULARY.num_tokens, VOCABULARY.digest())
Handler = Callable[[ServerConnection], Awaitable[None]]


def opened(key: bytes = b"key") -> bytes:
    limits = messages.Limits(4096, 64, 8)
    return codec.encode(messages.Opened(messages.PROTOCOL_VERSION, 0, key, 0, packing.log_digest(()), MARK, limits))


def busy(retry_after_s: float) -> bytes:
    return codec.encode(messages.Fault(FaultCode.BUSY, "all places are taken", 0, retry_after_s))


@asynccontextmanager
async def cloud(handler: Handler) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def write(url: str, engine: Engine | None = None, **changes: Any) -> Report:
    writer = Writer(engine or table(DRAFT))
    try:
        return await writer.write(changed(JOB, address=CloudAddress(url), **changes), lambda _: None)
    finally:
        writer.close()


@in_virtual_time
async def test_a_cut_between_opening_and_the_first_token_is_resumed() -> None:
    num_connections = 0

    async def handler(socket: ServerConnection) -> None:
        nonlocal num_connections
        num_connections += 1
        await socket.recv()
        await socket.send(opened())
        if num_connections > 1:
            await socket.recv()
            await socket.send(codec.encode(messages.Tokens(0, bytes([1] * 40))))
            await socket.wait_closed()

    async with cloud(handler) as url:
        report = await write(url, mode=Mode.CLOUD, patience=Patience("wait", 5))
    assert len(report.tokens) == 40
    assert report.reconnects == 1


@in_virtual_time
async def test_connections_of_one_text_have_one_random_route_id_and_those_of_two_texts_have_two() -> None:
    seen = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request.headers["x-session-id"])
        if len(seen) % 2:
            return  # the first connection of each text is cut
        await socket.recv()
        await socket.send(opened())
        await socket.recv()
        await socket.send(codec.encode(messages.Tokens(0, bytes([1] * 40))))
        await socket.wait_closed()

    async with cloud(handler) as url:
        for _ in range(2):
            assert (await write(url, mode=Mode.CLOUD, patience=Patience("wait", 5))).reconnects == 1
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert all(len(bytes.fromhex(route_id)) == 16 for route_id in seen)


@in_virtual_time
async def test_a_cloud_that_opens_and_dies_is_not_waited_for_without_end() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(opened())
        await socket.recv()

    async with cloud(handler) as url:
        with pytest.raises(TransportError):
            await write(url, patience=Patience("wait", 0.5))


@in_virtual_time
async def test_a_cloud_that_is_busy_for_longer_than_patience_ends_it_at_once() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(busy(3600.0))
        await socket.wait_closed()

    async with cloud(handler) as url:
        with pytest.raises(CloudFault, match="all places are taken"):
            await write(url, patience=Patience("wait", 0.5))


@in_virtual_time
async def test_a_busy_cloud_lets_the_device_go_on_alone() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(busy(1.0))
        await socket.wait_closed()

    async with cloud(handler) as url:
        assert (await write(url, patience=Patience("edge", 0))).is_alone


@in_virtual_time
async def test_a_cloud_that_opens_without_a_key_is_refused() -> None:
    async def handler(socket: ServerConnection) -> None:
        async for _ in socket:
            await socket.send(opened(b""))

    async with cloud(handler) as url:
        with pytest.raises(RemoteProtocolError, match="without a key"):
            await write(url)


@in_virtual_time
async def test_nothing_at_all_is_sent_where_the_opening_may_not_leave() -> None:
    frames: list[bytes | str] = []

    async def handler(socket: ServerConnection) -> None:
        async for frame in socket:
            frames.append(frame)  # noqa: PERF401

    async with cloud(handler) as url:
        with pytest.raises(DisclosureError):
            await write(url, prompts=PromptPair(PROMPT, NOTES))
    assert frames == []


@in_virtual_time
async def test_a_refused_text_gives_its_slot_back() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.wait_closed()

    engine = table(DRAFT, num_slots=1)
    async with cloud(handler) as url:
        with pytest.raises(DisclosureError):
            await write(url, engine, prompts=PromptPair(PROMPT, NOTES))
    engine.open(PROMPT)


async def test_a_vocabulary_page_that_is_no_http_leaves_the_mismatch() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello there\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert isinstance(await explain_mismatch(CloudAddress(url), VOCABULARY), VocabularyMismatch)


# Whether it gets anywhere

SILENCE_S = 0.3
SILENT_SOON = Patience("fail", 0, SILENCE_S, 1.5)
LONG_PROMPT = Prompt((TokenSegment((1, 2) * 100),))


def slow_cloud(pass_s: float, reassure_s: float = 0.05) -> AbstractAsyncContextManager[str]:
    """Reads ten tokens of a prompt in a pass, and says that it does."""
    engine = in_pace(table(TARGET), Pace(step_ms=1, prompt_ms=100 * pass_s))
    return virtual_cloud(engine, CloudSettings(prefill_tokens=10), reassure_s=reassure_s)


@pytest.mark.parametrize(
    "changes",
    [{"mode": Mode.CLOUD}, {"rule": Rank(1)}, {"way": chain(5)}, {}],
    ids=["cloud", "blocks", "chains", "auto"],
)
@in_virtual_time
async def test_a_cloud_that_says_that_it_reads_a_long_prompt_is_not_lost(changes: dict[str, Any]) -> None:
    prompts = PromptPair(LONG_PROMPT, LONG_PROMPT)
    async with slow_cloud(pass_s=0.05) as url:  # a second for the prompt, three times as long as it may be silent
        report = await write(url, prompts=prompts, patience=SILENT_SOON, **changes)
    assert (len(report.tokens), report.reconnects) == (40, 0)
    async with slow_cloud(pass_s=0.05, reassure_s=60) as url:
        with pytest.raises(TransportError, match=f"has not answered for {SILENCE_S} s"):
            await write(url, prompts=prompts, patience=SILENT_SOON, **changes)


@pytest.mark.parametrize("changes", [{"mode": Mode.CLOUD}, {"rule": Rank(1)}, {"way": chain(5)}, {}])
@pytest.mark.parametrize("is_flood", [False, True])
@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (messages.Tokens(0, b"\x01"), "has not answered for 0.3 s"),
        (messages.Working(), "has written nothing for 1.5 s"),
        (messages.PromptRead(1), "has written nothing for 1.5 s"),
        (None, "has not answered for 0.3 s"),
    ],
    ids=["known", "working", "reading", "silent"],
)
@in_virtual_time
async def test_what_brings_the_text_no_further_keeps_no_device_waiting(
    changes: dict[str, Any], said: messages.CloudMessage | None, is_flood: bool, complaint: str
) -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(opened())
        await socket.send(codec.encode(messages.Tokens(0, b"\x01")))
        while said is not None:
            await socket.send(codec.encode(said))
            if is_flood:
                time.sleep(0.01)  # noqa: ASYNC251 - the next message is there before anybody has waited for it
            await asyncio.sleep(0 if is_flood else 0.05)
        await socket.wait_closed()

    async with cloud(handler) as url:
        with pytest.raises(TransportError, match=complaint):
            await write(url, patience=SILENT_SOON, **changes)


@in_virtual_time
async def test_a_cloud_that_begins_again_and_again_with_what_is_known_is_not_waited_for_without_end() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(opened())
        await socket.send(codec.encode(messages.Tokens(0, b"\x01\x02")))
        await socket.recv()

    async with cloud(handler) as url:
        with pytest.raises(TransportError):
            await write(url, mode=Mode.CLOUD, patience=Patience("wait", 0.5))


@in_virtual_time
async def test_a_cloud_of_which_nothing_is_asked_may_be_silent() -> None:
    """The device reads its own prompt for longer than a cloud may owe an answer."""
    async with slow_cloud(pass_s=0.001) as url:
        engine = in_pace(table(DRAFT), Pace(step_ms=1, prompt_ms=10 * SILENCE_S))  # twice as long
        prompts = PromptPair(LONG_PROMPT, LONG_PROMPT)
        report = await write(url, engine, prompts=prompts, patience=SILENT_SOON, way=chain(5))
    assert (len(report.tokens), report.reconnects) == (40, 0)


@in_virtual_time
async def test_a_lost_verdict_keeps_its_origins_through_two_lost_connections() -> None:
    registry, num_connections = SessionRegistry(table(TARGET), CloudSettings()), 0

    async def handler(socket: ServerConnection) -> None:
        nonlocal num_connections
        num_connections += 1
        connection = num_connections
        async for frame in socket:
            if connection == 2:
                return
            assert isinstance(frame, bytes)
            message = codec.decode_edge_message(frame)
            replies = registry.receive(connection, message) + registry.step()
            if connection == 1 and isinstance(message, messages.Offer):
                registry.disconnect(connection)
                return
            for _, reply in replies:
                await socket.send(codec.encode(reply))

    sampling = SamplingParams(max_tokens=20)
    async with cloud(handler) as url:
        report = await write(url, table(TARGET), patience=Patience("wait", 5), sampling=sampling, way=chain(5))
    assert [token.origin.value for token in report.tokens[:6]] == ["accepted"] * 5 + ["cloud"]
    assert report.rounds >= 3


@in_virtual_time
async def test_a_device_that_went_on_alone_goes_on_with_the_cloud_when_that_is_back() -> None:
    registry, came_s = SessionRegistry(table(TARGET), CloudSettings()), list[float]()

    async def handler(socket: ServerConnection) -> None:
        came_s.append(time.monotonic())
        connection = len(came_s)
        if connection == 1:
            return
        if connection == 2:
            await socket.recv()
            await socket.send(busy(0.2))
            await socket.wait_closed()
            return
        async for frame in socket:
            assert isinstance(frame, bytes)
            message = codec.decode_edge_message(frame)
            replies = registry.receive(connection, message)
            while isinstance(message, messages.Generate) and registry.is_busy:  # all has arrived before it thinks
                replies += registry.step()
            for _, reply in replies:
                await socket.send(codec.encode(reply))

    async with cloud(handler) as url:
        engine = in_pace(table(RANDOM_DRAFT), Pace(step_ms=10))
        report = await write(url, engine, patience=Patience("edge", 0))
    origins = [token.origin for token in report.tokens]
    num_alone = origins.index(Origin.CLOUD)
    assert origins == [Origin.EDGE] * num_alone + [Origin.CLOUD] * (40 - num_alone)
    assert 0 < num_alone < 40
    assert came_s[2] - came_s[1] >= 0.2  # as the cloud asked for
    assert (report.is_alone, report.reconnects) == (True, 1)


async def test_a_prompt_that_fails_beside_a_lost_cloud_leaves_no_error_unheard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises((TransportError, CacheOverflow)):
        await write("ws://127.0.0.1:9", table(DRAFT, max_length=2))
    gc.collect()
    assert not caplog.records


@pytest.mark.parametrize("mode", [Mode.HYBRID, Mode.EDGE])
@in_virtual_time
async def test_a_cancelled_text_gives_its_slot_back(mode: Mode) -> None:
    engine = table(DRAFT, num_slots=1)
    async with virtual_cloud(table(TARGET)) as url:
        for delay_s in (0.0, 0.0001, 0.001, 0.005, 0.01, 0.02, 0.04):
            task = asyncio.create_task(write(url, in_pace(engine, Pace(step_ms=2)), mode=mode))
            await asyncio.sleep(delay_s)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            engine.close(engine.open(PROMPT).slot)
