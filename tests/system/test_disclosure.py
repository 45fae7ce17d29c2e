"""What leaves is recorded on its way, decoded, and held against the share level and the disclosure record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from skydraft.audio.clips import bundled_clips
from skydraft.audio.read import read_clip
from skydraft.config import DeviceSettings
from skydraft.core import Evidence, Mode, Origin, SamplingParams, ShareLevel
from skydraft.edge.device import Device
from skydraft.edge.local_cloud import local_cloud
from skydraft.edge.report import Report, Unasked
from skydraft.engines.load import load_ears, load_engine, load_tokenizer
from skydraft.engines.settings import EngineSettings
from skydraft.protocol import codec, messages, packing
from skydraft.tasks.caption import caption_prompts
from tests.linked import cloud_only

HEARD: dict[str, Any] = {"share": ShareLevel.FEATURES}

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
        # The bundled voices are a synthesiser's, which no model knows.
        heard = DeviceSettings(cloud=tap, seed=1, any_voice=True, **settings)  # type: ignore[arg-type]
        with Device.load(heard) as device:
            (window,) = await device.caption(read_clip(clip))
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
    openings = {(await caption(embedded_cloud, clip, preset="ugsd"))[1][0] for clip in bundled_clips()}
    assert len(openings) == 1


async def test_under_features_the_log_mel_leaves_once_and_is_recorded(embedded_cloud: str) -> None:
    report, up, _ = await caption(embedded_cloud, bundled_clips()[0], **HEARD, evidence=Evidence.ALWAYS)
    sent = [codec.decode_edge_message(frame) for frame in up]
    (opening,) = [message for message in sent if isinstance(message, messages.Open)]
    (tensor,) = [segment for segment in opening.segments if isinstance(segment, messages.WireTensor)]
    assert (tensor.name, tensor.dtype) == ("levelled_log_mel", "int8")
    assert report.disclosure.up["features"] == len(tensor.data)
    assert sum(report.disclosure.up.values()) == sum(map(len, up))
    assert report.disclosure.has_evidence


@pytest.mark.parametrize("settings", [{}, {"mode": Mode.AUTO}, {"share": "features", "evidence": "never"}])
async def test_a_cloud_that_could_not_hear_is_not_asked(embedded_cloud: str, settings: dict[str, Any]) -> None:
    report, up, _ = await caption(embedded_cloud, bundled_clips()[0], **settings)
    assert up == []
    assert report.unasked is Unasked.DEAF
    assert report.tokens


@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_where_the_device_is_unsure_the_cloud_goes_on_from_its_words(
    embedded_cloud: str, temperature: float
) -> None:
    """The gate escalates the word of the emotion: what is before it is the device's."""
    clip, vocabulary = bundled_clips()[0], load_tokenizer("embedded", "draft").vocabulary
    how = {"gate": "emotion-margin:1", "block_length": 1, "temperature": temperature}
    report, up, _ = await caption(embedded_cloud, clip, **HEARD, **how)
    opening, *_ = sent = [codec.decode_edge_message(frame) for frame in up]
    assert isinstance(opening, messages.Open)
    assert [type(segment) for segment in opening.segments].count(messages.WireTensor) == 1
    assert sum(isinstance(message, messages.Open) for message in sent) == 1
    committed = [token.token_id for token in report.tokens if token.origin is Origin.EDGE]
    assert [token.token_id for token in report.tokens[: len(committed)]] == committed
    assert committed
    hear, tokenizer = load_ears("embedded", "target"), load_tokenizer("embedded", "target")
    assert hear is not None
    prompts = caption_prompts(tokenizer.encode, hear(read_clip(clip).samples), ShareLevel.FEATURES)
    sampling = SamplingParams(end_ids=tuple(vocabulary.end_ids), seed=1, temperature=temperature)
    target = load_engine("embedded", "target", EngineSettings(num_threads=1))
    assert [t.token_id for t in report.tokens] == cloud_only(target, sampling, prompts.edge, committed)


async def test_of_a_caption_that_the_device_is_sure_of_nothing_leaves(embedded_cloud: str) -> None:
    report, up, _ = await caption(embedded_cloud, bundled_clips()[0], **HEARD, gate="emotion-margin:0")
    assert up == []
    assert report.unasked is Unasked.SURE
    assert not report.disclosure.up


async def test_of_a_voice_that_the_device_does_not_know_only_a_whole_caption_of_the_clouds_is_asked_for(
    embedded_cloud: str,
) -> None:
    """The bundled voices are such: the text is the cloud's own, token for token, or nothing leaves."""
    clip, up = read_clip(bundled_clips()[0]), list[bytes]()
    async with tapped(embedded_cloud, up, []) as tap:
        with Device.load(DeviceSettings(cloud=tap, **HEARD)) as device:
            (unasked,) = await device.caption(clip)
            assert up == []
            always = replace(device.settings, evidence=Evidence.ALWAYS)
            (asked,) = await device.caption(clip, settings=always)
            (alone,) = await device.caption(clip, settings=replace(always, mode=Mode.CLOUD))
    assert unasked.report.unasked is Unasked.STRANGE
    assert not unasked.report.tokens
    assert asked.report.is_cloud_text
    assert asked.report.text == alone.report.text
    assert [window.is_sure for window in (unasked, asked, alone)] == [False] * 3
    assert {window.confidence for window in (unasked, asked, alone)} == {None}


async def test_a_device_that_shares_nothing_opens_no_connection(embedded_cloud: str) -> None:
    settings = DeviceSettings(cloud=embedded_cloud, share=ShareLevel.NONE, mode=Mode.EDGE, any_voice=True)
    up: list[bytes] = []
    async with tapped(embedded_cloud, up, []):
        with Device.load(settings) as device:
            (window,) = await device.caption(read_clip(bundled_clips()[0]))
    assert window.report.tokens
    assert up == []
    assert not window.report.disclosure.up


@pytest.mark.parametrize(
    ("share", "evidence"),
    [
        (ShareLevel.TOKENS, None),
        (ShareLevel.FEATURES, Evidence.NEVER),
        (ShareLevel.FEATURES, Evidence.ALWAYS),
        (ShareLevel.FEATURES, None),
    ],
)
async def test_a_context_leaves_only_under_features_and_where_it_may(
    share: ShareLevel, evidence: Evidence | None
) -> None:
    """By default it does here too: a model of random logits is unsure from the start."""
    is_told = share is ShareLevel.FEATURES and evidence is not Evidence.NEVER
    model, context = "table:vocab=1000,seed=3", " ".join(["bu", "ze", "fa", "ko", "ri"] * 4)
    up: list[bytes] = []
    async with local_cloud(model) as url, tapped(url, up, []) as tap:
        settings = DeviceSettings(cloud=tap, draft=model, share=share, evidence=evidence, max_tokens=12)
        with Device.load(settings) as device:
            report = await device.generate("ba be bi", context=context)
            secret_ids, asked_ids = device.tokenizer.encode(context), device.tokenizer.encode("ba be bi")
    opening = codec.decode_edge_message(up[0])
    assert isinstance(opening, messages.Open)
    texts = [segment for segment in opening.segments if isinstance(segment, messages.WireTokens)]
    assert len(texts) == len(opening.segments)
    told = [segment.packed_ids for segment in texts if segment.is_evidence]
    asked = [segment.packed_ids for segment in texts if not segment.is_evidence]
    assert asked == [packing.pack(asked_ids, 10)]
    secret = packing.pack(secret_ids, 10)
    assert told == ([secret] if is_told else [])
    assert any(secret[:6] in frame for frame in up) == is_told
    assert report.disclosure.has_evidence == is_told
