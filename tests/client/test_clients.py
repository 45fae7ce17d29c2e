"""skydraft from Python, against a cloud in a thread of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skydraft
from skydraft.client import AsyncClient, Client, Cloud, pipeline
from skydraft.client.event_loop import EventLoop
from skydraft.client.options import ClientOptions, TextOptions
from skydraft.config import CloudSettings, DeviceSettings
from skydraft.core import ShareLevel
from skydraft.edge.border import DisclosureRecord
from skydraft.engines.base import EngineLimits
from skydraft.engines.emulated.table_spec import load_table
from skydraft.errors import AudioError, ConfigError, SkydraftError
from tests.audio.sounds import RATE_HZ, tone, write
from tests.cloud.running import get, running, samples
from tests.gateway.running import DRAFT, TARGET, truth

ASKED = "ba de"
TEXT: TextOptions = {"max_tokens": 40}


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    with running(CloudSettings(port=0), partial(load_table, TARGET, EngineLimits(8, 4096))) as served:
        yield served.address


def test_a_client_takes_every_setting_of_a_device() -> None:
    assert ClientOptions.__optional_keys__ == set(DeviceSettings.__struct_fields__)


async def test_texts_are_the_clouds_own_whatever_is_chosen_for_each(cloud: str) -> None:
    async with AsyncClient(draft=DRAFT, cloud=cloud, max_tokens=40) as client:
        assert (await client.generate(ASKED)).text == truth(ASKED)
        sampled = await client.generate(ASKED, temperature=0.8, seed=4, top_k=7)
        assert sampled.text == truth(ASKED, temperature=0.8, seed=4, top_k=7)
        talk = [{"role": "system", "content": "mo"}, {"role": "user", "content": ASKED}]
        assert (await client.chat(talk)).text == truth(f"mo\n\n{ASKED}")


async def test_a_stream_gives_pieces_and_then_the_report(cloud: str) -> None:
    async with AsyncClient(draft=DRAFT, cloud=cloud) as client:
        stream = client.stream(ASKED, **TEXT)
        pieces = [piece.text async for piece in stream]
        assert "".join(pieces) == truth(ASKED) == (await stream.result()).text
        assert [piece async for piece in stream] == []
        async with client.stream([{"role": "user", "content": ASKED}], **TEXT) as talk:
            assert "".join([piece.text async for piece in talk]) == truth(ASKED)


async def test_many_at_once(cloud: str) -> None:
    async with AsyncClient(draft=DRAFT, cloud=cloud, num_slots=3) as client:
        prompts = [f"{ASKED} {word}" for word in ("ba", "de", "mo", "ku", "ba ba", "ba de", "de de")]
        reports = await client.generate_many(prompts, **TEXT)
    assert [report.text for report in reports] == [truth(prompt) for prompt in prompts]


async def test_a_stream_that_is_left_frees_its_slots_on_both_sides() -> None:
    with running(CloudSettings(port=0), partial(load_table, TARGET, EngineLimits(8, 4096))) as served:
        async with AsyncClient(draft=DRAFT, cloud=served.address) as client:
            async with client.stream(ASKED, max_tokens=4000, temperature=0.1, seed=1) as stream:
                await anext(stream)
            assert (await client.generate(ASKED, **TEXT)).text == truth(ASKED)

            async def num_sessions() -> float:
                exposition = await asyncio.to_thread(lambda: get(served.address, "/metrics").text)
                return samples(exposition)["skydraft_sessions"]

            while await num_sessions():  # until the cloud has heard of it
                pass


async def test_what_left_for_a_text_that_was_broken_off_is_counted(cloud: str) -> None:
    async with AsyncClient(draft=DRAFT, cloud=cloud) as client:
        assert client.device.disclosed == DisclosureRecord(ShareLevel.NONE)
        async with client.stream(ASKED, max_tokens=4000) as stream:
            await anext(stream)
        broken_off = client.device.disclosed.up.total()
        report = await client.generate(ASKED, **TEXT)
        whole = client.device.disclosed
        assert whole.up.total() == broken_off + report.disclosure.up.total() > broken_off > 0
        assert (whole.level, whole.contents["instruction text"]) == (ShareLevel.TOKENS, 2)


async def test_an_error_in_a_stream_is_raised_where_it_is_read(cloud: str) -> None:
    async with AsyncClient(draft=DRAFT, cloud=cloud) as client:
        with pytest.raises(ConfigError, match="blank"):
            await anext(client.stream("  "))
        with pytest.raises(ConfigError, match="temperature is 400"):
            await client.generate(ASKED, temperature=400.0)
        with pytest.raises(ConfigError, match="colour"):
            await client.generate(ASKED, colour="red")  # type: ignore[call-arg]
        with pytest.raises(ConfigError, match="blank"):
            await client.generate_many([ASKED, " "])


def test_programs_without_an_event_loop_have_the_same(cloud: str) -> None:
    with Client(draft=DRAFT, cloud=cloud, max_tokens=40) as client:
        assert client.generate(ASKED).text == truth(ASKED)
        assert client.chat([{"role": "user", "content": ASKED}]).text == truth(ASKED)
        stream = client.stream(ASKED)
        assert "".join(piece.text for piece in stream) == truth(ASKED) == stream.result().text
        with client.stream(ASKED, max_tokens=4000) as left:
            next(left)
        with ThreadPoolExecutor(6) as threads:
            texts = threads.map(lambda seed: client.generate(ASKED, temperature=0.9, seed=seed).text, range(6))
            assert list(texts) == [truth(ASKED, temperature=0.9, seed=seed) for seed in range(6)]
        assert [report.text for report in client.generate_many([ASKED, "mo"])] == [truth(ASKED), truth("mo")]
        with pytest.raises(ConfigError, match="blank"):
            client.generate(" ")


def test_an_interrupted_call_has_ended_when_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    async def work() -> None:
        try:
            happened.append("begun")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            happened.append("ended")

    loop, wait = EventLoop(), Future.result

    def interrupted(future: Future[Any]) -> Any:
        monkeypatch.setattr(Future, "result", wait)
        while has_begun and not happened:
            pass
        raise KeyboardInterrupt

    for has_begun in (True, False):
        happened.clear()
        monkeypatch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.run(work())
        assert happened == ["begun", "ended"] or (not has_begun and not happened)
    loop.close()


def test_a_client_that_was_not_entered_says_so() -> None:
    with pytest.raises(ConfigError, match="with Client"):
        Client(draft=DRAFT).generate(ASKED)
    with pytest.raises(ConfigError, match="async with AsyncClient"):
        asyncio.run(AsyncClient(draft=DRAFT).generate(ASKED))


def test_a_client_that_cannot_load_its_models_leaves_no_thread(cloud: str) -> None:
    with pytest.raises(SkydraftError, match="nowhere"), Client(draft="/nowhere", cloud=cloud):
        pass


async def test_captions_of_paths_bytes_and_arrays_are_the_same(tmp_path: Path) -> None:
    hearing = "table:vocab=200,seed=3,order=3,tensors=1"
    path = write(tmp_path / "voice.wav", tone(0.5), subtype="FLOAT")
    stereo = np.stack([tone(0.5), tone(0.5)], axis=1)
    async with AsyncClient(draft=hearing, mode="edge", share="none", max_tokens=9, any_sound=True) as client:
        texts = [
            (await client.caption(sound, rate_hz)).text
            for sound, rate_hz in ((path, None), (str(path), None), (path.read_bytes(), None), (tone(0.5), RATE_HZ))
        ]
        assert len(set(texts)) == 1
        assert texts[0]
        assert (await client.caption(stereo, RATE_HZ)).text == texts[0]
        stream = client.stream_caption(path)
        assert "".join([piece.text async for piece in stream]) == texts[0] == (await stream.result()).text
        for wrong, rate_hz, sentence in (
            (tone(0.5), None, "without their rate"),
            (tone(0.5).astype(np.complex64), RATE_HZ, "is no sound"),
            (tone(0.5), -5, "is no sound"),
            (b"nonsense", None, "the clip"),
            (np.zeros(RATE_HZ, np.float32), RATE_HZ, "silent"),
        ):
            with pytest.raises(AudioError, match=sentence):
                await client.caption(wrong, rate_hz)


def test_options_are_settings_of_a_device_by_their_names() -> None:
    for options in (TextOptions, ClientOptions):
        assert set(options.__annotations__) <= set(DeviceSettings.__struct_fields__)


def test_a_cloud_for_the_occasion_and_one_line_for_a_pair() -> None:
    with Cloud(TARGET) as address:
        pipe = pipeline("text-generation", model=TARGET, assistant_model=DRAFT, cloud=address)
        with pipe:
            (generated,) = pipe(ASKED, max_new_tokens=40)
            assert generated["generated_text"] == ASKED + truth(ASKED)
            texts = pipe([ASKED, "mo"], max_new_tokens=40, return_full_text=False)
            assert [each["generated_text"] for each in texts] == [truth(ASKED), truth("mo")]
    with pytest.raises(ConfigError, match="unknown task 'painting'"):
        pipeline("painting", model=TARGET, assistant_model=DRAFT)  # type: ignore[arg-type]


async def test_a_cloud_for_the_occasion_in_an_event_loop() -> None:
    async with Cloud(TARGET) as address, AsyncClient(draft=DRAFT, cloud=address) as client:
        assert (await client.generate(ASKED, **TEXT)).text == truth(ASKED)


def test_names_of_the_package_are_imported_when_they_are_asked_for() -> None:
    assert skydraft.Client is Client
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _: Any = skydraft.Nothing  # type: ignore[attr-defined]
