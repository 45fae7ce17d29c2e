"""What is told before weights are loaded: the folders here have none."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from skydraft.config import CloudSettings, DeviceSettings
from skydraft.edge import preflight
from skydraft.edge.preflight import check_models, meet_cloud
from skydraft.engines.base import Engine
from skydraft.engines.load import load_tokenizer
from skydraft.errors import CloudBusy, ConfigError, TransportError, VocabularyMismatch
from tests.cloud.running import running
from tests.linked import table
from tests.waiting import PATIENCE_S

SMALL, LARGE = "table:vocab=64", "table:vocab=80"  # the larger vocabulary extends the smaller


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A model without weights, of other tokens than tables have."""
    words = {"[UNK]": 0, "ba": 1, "de": 2, "fi": 3}
    path = tmp_path / "other-tokens"
    path.mkdir()
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]")).save(str(path / "tokenizer.json"))
    config = {"model_type": "llama", "vocab_size": 4, "max_position_embeddings": 100}
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


@contextmanager
def serving(model: str) -> Iterator[str]:
    with running(CloudSettings(port=0), lambda: table(model)) as cloud:
        yield cloud.address


async def check(draft: str, **settings: object) -> None:
    asked = DeviceSettings(draft=draft, **settings)  # type: ignore[arg-type]
    await check_models(asked, load_tokenizer(draft, "draft").vocabulary)


@pytest.mark.parametrize(("draft", "target"), [(SMALL, SMALL), (SMALL, LARGE), (LARGE, SMALL)])
async def test_models_of_a_family_pass(draft: str, target: str) -> None:
    await check(draft, target=target)
    with serving(target) as address:
        await check(draft, cloud=address)


async def test_models_of_different_vocabularies_are_refused_with_the_ids_that_differ(folder: str) -> None:
    words = r"other-tokens and the target model table:vocab=\d+ do not share .* id 0 is '\[UNK\]' in the draft and 'ba'"
    with pytest.raises(VocabularyMismatch, match=words):
        await check(folder, target=SMALL)
    with serving(SMALL) as address, pytest.raises(VocabularyMismatch, match="do not share .* id 0 is"):
        await check(folder, cloud=address)


async def test_a_text_longer_than_who_writes_it_holds_is_refused(folder: str) -> None:
    words = "a text of 101 tokens was asked for and the model .* holds 100 of a text and its prompt"
    with pytest.raises(ConfigError, match=words):
        await check(folder, mode="edge", max_tokens=101)
    with pytest.raises(ConfigError, match=words):
        await check(folder, target=folder, max_tokens=101)
    with pytest.raises(ConfigError, match="100,000 tokens was asked for and the model table:vocab=64 holds 4,096"):
        await check(SMALL, target=SMALL, max_tokens=100_000)
    with (
        serving(SMALL) as address,
        pytest.raises(ConfigError, match=r"of the cloud at ws.* holds [\d,]+ .*: lower --max-"),
    ):
        await check(SMALL, cloud=address, max_tokens=100_000)


async def test_a_short_draft_does_not_bound_the_text_of_a_longer_target(folder: str) -> None:
    with pytest.raises(VocabularyMismatch):  # which is looked at last
        await check(folder, target=SMALL, max_tokens=200)


async def test_the_device_alone_asks_nobody(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "inquire", lambda *_: pytest.fail("something left the device"))
    await check(folder, mode="edge", cloud="ws://127.0.0.1:9", max_tokens=100)
    await check(folder, mode="auto", share="none", cloud="ws://127.0.0.1:9", max_tokens=100)
    await check(folder, mode="auto", objective="privacy", cloud="ws://127.0.0.1:9", max_tokens=100)


async def test_a_cloud_that_is_not_there_is_no_question_of_models() -> None:
    await check(SMALL, cloud="ws://127.0.0.1:9")


@pytest.mark.parametrize("settings", [{}, {"offline": "fail"}, {"mode": "cloud"}, {"mode": "auto"}])
async def test_a_cloud_that_is_not_there_is_told_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(TransportError, match="nothing listens there"):
        await meet_cloud(DeviceSettings(cloud="ws://127.0.0.1:9", **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"offline": "edge"},
        {"mode": "edge"},
        {"mode": "auto", "share": "none"},
        {"mode": "auto", "objective": "privacy"},
    ],
)
async def test_a_cloud_that_the_device_can_do_without_is_not_asked(settings: dict[str, Any]) -> None:
    await meet_cloud(DeviceSettings(cloud="ws://127.0.0.1:9", **settings))


async def test_a_cloud_at_another_path_is_told_so_and_not_asked_for_a_key() -> None:
    with serving(SMALL) as address:
        await meet_cloud(DeviceSettings(cloud=address))
        for key in (None, "key"):
            with pytest.raises(TransportError, match=r"no skydraft cloud at this path \(HTTP 404\)"):
                await meet_cloud(DeviceSettings(cloud=f"{address}/elsewhere", key=key))


async def test_a_cloud_that_still_loads_is_waited_for_unless_the_settings_say_otherwise() -> None:
    is_over = threading.Event()

    def load() -> Engine:
        is_over.wait(PATIENCE_S)
        return table(SMALL)

    with running(CloudSettings(port=0), load, is_ready=False) as cloud:
        try:
            await meet_cloud(DeviceSettings(cloud=cloud.address))
            with pytest.raises(CloudBusy, match="not up now"):
                await meet_cloud(DeviceSettings(cloud=cloud.address, offline="fail"))
        finally:
            is_over.set()


@pytest.mark.parametrize("answer", [b"{}", b"no JSON", b'{"num_tokens": 1, "digest": 3, "max_tokens": 9}', None])
async def test_a_cloud_that_answers_something_else_is_found_out_when_the_text_is_opened(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one, or a proxy; or nothing comes."""
    monkeypatch.setattr(preflight, "ANSWER_S", 0.2)
    is_over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if answer is None:
                is_over.wait(PATIENCE_S)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            await check(SMALL, cloud=f"ws://127.0.0.1:{server.server_port}")
        finally:
            is_over.set()
            server.shutdown()
