"""`--draft auto` among folders with a tokenizer and made-up weights: only their size counts until they are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import huggingface_hub
import pytest
import tokenizers

from skydraft.config import CloudSettings, DeviceSettings
from skydraft.edge.doctor import checkup, measure
from skydraft.edge.doctor.checkup import FindingState, check_up
from skydraft.edge.draft_choice import choose_draft
from skydraft.edge.machine import Machine, Speed
from skydraft.engines.base import Engine
from skydraft.engines.load import load_tokenizer
from skydraft.errors import ConfigError, TransportError
from tests.cloud.running import running
from tests.linked import table
from tests.system.processes import free_port

TABLE = "table:vocab=64"
OTHER = ["[UNK]", "ba", "de", "fi"]

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Write a model folder: save("name", num_bytes=9, tokens=...). Nothing was fetched before, and nothing can be."""
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    for fetch in ("snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(huggingface_hub, fetch, lambda *args, **_: pytest.fail(f"{args} was to be fetched"))

    def folder(name: str, num_bytes: int = 9, tokens: Sequence[str | None] = OTHER) -> Path:
        path = tmp_path / "models" / name
        path.mkdir(parents=True)
        words = {token: index for index, token in enumerate(tokens) if token is not None}
        model = tokenizers.models.WordLevel(words, unk_token=next(iter(words)))
        tokenizers.Tokenizer(model).save(str(path / "tokenizer.json"))
        (path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": len(tokens)}))
        (path / "model.safetensors").write_bytes(bytes(num_bytes))
        return path

    return folder


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    with running(CloudSettings(port=0), lambda: table(TABLE)) as cloud:
        yield cloud.address


def of_cloud() -> Sequence[str | None]:
    return load_tokenizer(TABLE, "target").vocabulary.tokens


async def chosen(save: Save, **settings: object) -> str:
    folder = save("no-tokens-of-its-own").parent
    asked = DeviceSettings(draft="auto", models=str(folder), **settings)  # type: ignore[arg-type]
    return Path((await choose_draft(asked)).draft).name


async def refused(save: Save, **settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        await chosen(save, **settings)
    return str(caught.value)


async def test_what_is_looked_up_needs_no_more_of_a_model_than_its_tokens(save: Save, cloud: str) -> None:
    folder = save("target", 1, of_cloud()).parent
    running = DeviceSettings(draft="lookup", models=str(folder), cloud=cloud)
    assert (await choose_draft(running)).draft == f"lookup:{folder / 'target'}"
    assert (await choose_draft(running)).draft_model == str(folder / "target")
    assert (await choose_draft(DeviceSettings(draft="lookup", target=TABLE))).draft == f"lookup:{TABLE}"
    named = DeviceSettings(draft="lookup:mine", cloud=cloud)
    assert await choose_draft(named) is named


async def test_where_no_model_has_the_tokens_to_look_up_the_user_is_asked_for_one(save: Save, cloud: str) -> None:
    folder = save("other").parent
    with pytest.raises(ConfigError, match="name one that does, as --draft lookup:MODEL"):
        await choose_draft(DeviceSettings(draft="lookup", models=str(folder), cloud=cloud))


async def test_doctor_loads_no_model_where_drafts_are_looked_up() -> None:
    result = await check_up(DeviceSettings(draft=f"lookup:{TABLE}"))
    (found,) = (finding for finding in result.findings if finding.check == "draft")
    assert found.state is FindingState.OK
    assert found.sentence == f"looked up, with the tokens of {TABLE}: no model is read"


async def test_a_draft_that_is_named_stays(save: Save) -> None:
    settings = DeviceSettings(draft="my-model")
    assert await choose_draft(settings) is settings


async def test_of_the_models_with_the_running_clouds_tokens_the_smallest_drafts(save: Save, cloud: str) -> None:
    save("large", 30, of_cloud())
    save("small", 20, of_cloud())
    save("others-are-smaller", 10)
    assert await chosen(save, cloud=cloud) == "small"


async def test_of_a_cloud_that_is_to_be_started_its_model_is_asked(save: Save) -> None:
    target = save("target", 5)
    save("of-the-table", 20, of_cloud())
    draft = save("draft", 30)
    assert await chosen(save, target=str(target)) == "no-tokens-of-its-own"
    assert await chosen(lambda _: draft, target=TABLE) == "of-the-table"


async def test_a_cloud_does_not_draft_for_itself(save: Save) -> None:
    target = save("target", 1, of_cloud())
    assert "none of 2 models" in await refused(save, target=str(target))


async def test_where_none_fits_the_known_ones_are_named_and_none_is_fetched(save: Save, cloud: str) -> None:
    target = save("Qwen2.5-7B-Instruct", 5, of_cloud())
    sentence = await refused(save, target=str(target))
    assert f"none of 2 models in {target.parent} shares the token ids of the cloud's model" in sentence
    assert "--draft Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q4_k_m.gguf (0.49 GB, Apache-2.0)" in sentence


async def test_for_a_model_that_nobody_knows_the_user_is_asked_for_a_draft(save: Save, cloud: str) -> None:
    sentence = await refused(save, cloud=cloud)
    assert sentence.endswith("and no published one is known that does: name one with --draft")


async def test_a_model_that_cannot_be_read_is_passed_over_and_told(save: Save, cloud: str) -> None:
    broken = save("broken", 1, of_cloud())
    (broken / "tokenizer.json").write_text("{")
    assert f"1 of them cannot be read ({broken}" in await refused(save, cloud=cloud)


async def test_a_known_draft_that_was_fetched_before_is_a_candidate(
    save: Save, cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = save("fetched", 20, of_cloud())
    name = "alamios/Mistral-Small-3.1-DRAFT-0.5B"
    cached = {(name, "config.json"): str(fetched / "config.json")}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *key: cached.get(key))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(fetched))
    settings = await choose_draft(DeviceSettings(draft="auto", cloud=cloud))
    assert settings.draft == name


@pytest.mark.parametrize("settings", [{"mode": "edge"}, {"mode": "auto", "objective": "privacy"}])
async def test_where_no_cloud_may_be_asked_there_is_nothing_to_choose_by(
    save: Save, cloud: str, settings: dict[str, str]
) -> None:
    assert "no cloud is asked: name a model" in await refused(save, cloud=cloud, **settings)


async def test_a_folder_that_is_not_there_and_a_cloud_out_of_reach_are_told(save: Save, cloud: str) -> None:
    with pytest.raises(ConfigError, match="there is no folder /nowhere"):
        await choose_draft(DeviceSettings(draft="auto", models="/nowhere", cloud=cloud))
    with pytest.raises(TransportError):
        await chosen(save, cloud=f"ws://127.0.0.1:{free_port()}")


async def test_doctor_says_why_no_draft_was_found(cloud: str, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MEASURE_S", 0.1)
    folder = save("other").parent
    result = await check_up(DeviceSettings(draft="auto", models=str(folder), cloud=cloud))
    found = {finding.check: finding for finding in result.findings}
    assert found["draft"].state is FindingState.FAILED
    assert "none of 1 models" in found["draft"].sentence
    assert found["cloud"].state is FindingState.OK


async def test_doctor_proposes_a_published_draft_for_a_cloud_whose_model_is_known(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named() -> Engine:
        engine = table(TABLE)
        engine.name = "Meta-Llama-3.1-8B-Instruct-Q4_K_M"
        return engine

    monkeypatch.setattr(measure, "MEASURE_S", 0.1)
    monkeypatch.setattr(
        checkup, "look_at_machine", lambda: Machine("Linux", 4, 0.0, 16 * 2**30, 8 * 2**30, None, True, None)
    )
    # 20 GB/s let the 1B write 24 tokens/s, and the 3B 9.9: not twice as fast as people read.
    monkeypatch.setattr(checkup, "measure_speed", lambda _: Speed(20e9, 0.02, None))
    with running(CloudSettings(port=0), named) as cloud:
        result = await check_up(DeviceSettings(draft=TABLE, cloud=cloud.address))
    assert result.known_draft is not None
    assert result.known_draft.pair.draft.name == "Llama-3.2-1B"
    assert result.known_draft.pair.target.name == "Llama-3.1-8B"
