"""What leaves is recorded on its way, decoded, and held against the share level and the disclosure record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from skydraft.audio.clips import bundled_clips
from skydraft.audio.read import read_clip
from skydraft.config import DeviceSettings
from skydraft.core import Mode, ShareLevel
from skydraft.edge.device import Device
from skydraft.edge.local_cloud import local_cloud
from skydraft.edge.report import Report
from skydraft.protocol import codec, messages, packing

pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def tapped(url: str, up: list[bytes], down: list[bytes]) -> AsyncIterator[str]:
    """A relay in front of a cloud that keeps every frame."""

    async def relay(device: ServerConnection) -> None:
        async with connect(url + "/v1/session") as cloud:
            tasks = [asyncio.create_task(_copy(device, cloud, up)), asyncio.create_task(_copy(cloud, device, down))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()

    async with serve(relay, "127.0.0.1", 0, max_size=2**24) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}"


async def _copy(source: object, target: object, kept: list[bytes]) -> None:
    try:
        async for frame in source:  # type: ignore[attr-defined]
            kept.append(frame)
            await target.send(frame)  # type: ignore[attr-defined]
    except ConnectionClosed:
        pass


async def caption(url: str, clip: Path, **settings: object) -> tuple[Report, list[bytes], list[bytes]]:
    up: list[bytes] = []
    down: list[bytes] = []
    async with tapped(url, up, down) as tap:
        with Device.load(DeviceSettings(cloud=tap, seed=1, **settings)) as device:  # type: ignore[arg-type]
            (window,) = await device.caption(read_clip(clip))
    assert window.report is not None
    return window.report, up, down


async def test_under_tokens_no_evidence_leaves_and_every_byte_is_recorded(embedded_cloud: str) -> None:
    report, up, down = await caption(embedded_cloud, bundled_clips()[0], gate="always")
    sent = [codec.decode_edge_message(frame) for frame in up]
    assert {type(message) for message in sent} == {messages.Open, messages.Offer, messages.Close}
    segments = [segment for message in sent if isinstance(message, messages.Open) for segment in message.segments]
    assert segments
    for segment in segments:
        assert isinstance(segment, messages.WireTokens)
        assert not segment.is_evidence
    assert sum(report.disclosure.up.values()) == sum(map(len, up))
    assert sum(report.disclosure.down.values()) == sum(map(len, down))
    assert "features" not in report.disclosure.up
    assert not report.disclosure.has_evidence


async def test_the_opening_is_the_same_for_every_clip_under_tokens(embedded_cloud: str) -> None:
    openings = {(await caption(embedded_cloud, clip))[1][0] for clip in bundled_clips()}
    assert len(openings) == 1


async def test_under_features_the_log_mel_leaves_once_and_is_recorded(embedded_cloud: str) -> None:
    report, up, _ = await caption(embedded_cloud, bundled_clips()[0], share=ShareLevel.FEATURES)
    sent = [codec.decode_edge_message(frame) for frame in up]
    (opening,) = [message for message in sent if isinstance(message, messages.Open)]
    (tensor,) = [segment for segment in opening.segments if isinstance(segment, messages.WireTensor)]
    assert tensor.name == "log_mel"
    assert report.disclosure.up["features"] == len(tensor.data)
    assert sum(report.disclosure.up.values()) == sum(map(len, up))
    assert report.disclosure.has_evidence


async def test_a_device_that_shares_nothing_opens_no_connection(embedded_cloud: str) -> None:
    settings = DeviceSettings(cloud=embedded_cloud, share=ShareLevel.NONE, mode=Mode.EDGE)
    up: list[bytes] = []
    async with tapped(embedded_cloud, up, []):
        with Device.load(settings) as device:
            (window,) = await device.caption(read_clip(bundled_clips()[0]))
    assert window.report is not None
    assert window.report.tokens
    assert up == []
    assert not window.report.disclosure.up


@pytest.mark.parametrize("share", [ShareLevel.TOKENS, ShareLevel.FEATURES])
async def test_a_context_leaves_only_under_features(share: ShareLevel) -> None:
    model, context = "table:vocab=1000,seed=3", " ".join(["bu", "ze", "fa", "ko", "ri"] * 4)
    up: list[bytes] = []
    async with local_cloud(model) as url, tapped(url, up, []) as tap:
        with Device.load(DeviceSettings(cloud=tap, draft=model, share=share, max_tokens=12)) as device:
            report = await device.generate("ba be bi", context=context)
            secret_ids, asked_ids = device.tokenizer.encode(context), device.tokenizer.encode("ba be bi")
    opening = codec.decode_edge_message(up[0])
    assert isinstance(opening, messages.Open)
    texts = [segment for segment in opening.segments if isinstance(segment, messages.WireTokens)]
    assert len(texts) == len(opening.segments)
    evidence = [segment.packed_ids for segment in texts if segment.is_evidence]
    asked = [segment.packed_ids for segment in texts if not segment.is_evidence]
    assert asked == [packing.pack(asked_ids, 10)]
    secret = packing.pack(secret_ids, 10)
    assert evidence == ([secret] if share is ShareLevel.FEATURES else [])
    assert any(secret[:6] in frame for frame in up) == (share is ShareLevel.FEATURES)
    assert report.disclosure.has_evidence == (share is ShareLevel.FEATURES)
