from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skydraft.config import DeviceSettings
from skydraft.core import Mode, Prompt, SamplingParams, ShareLevel, TokenSegment
from skydraft.edge.device import Device
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.errors import ConfigError
from skydraft.tasks.chat import Conversation, Tools
from tests.linked import cloud_only

MODEL = "table:vocab=64,seed=3,order=4"
SETTINGS = DeviceSettings(draft=MODEL, mode=Mode.EDGE, share=ShareLevel.NONE, max_tokens=12)


def alone(text: str) -> list[int]:
    """What the model writes after a text."""
    prompt = Prompt((TokenSegment(tuple(load_tokenizer(MODEL, "draft").encode(text))),))
    return cloud_only(load_engine(MODEL, "draft"), SamplingParams(max_tokens=12), prompt)


class Marked:
    """A chat format."""

    def render(self, messages: Conversation, tools: Tools = ()) -> str:
        return " ".join(f"{message['role']}: {message['content']}" for message in messages) + " assistant:"


@pytest.mark.parametrize(("is_raw", "prompt"), [(False, "user: ba de assistant:"), (True, "ba de")])
async def test_a_prompt_is_put_into_the_models_chat_format_unless_raw(is_raw: bool, prompt: str) -> None:
    settings = DeviceSettings(draft=MODEL, mode=Mode.EDGE, share=ShareLevel.NONE, max_tokens=12, raw=is_raw)
    engine, tokenizer = load_engine(MODEL, "draft"), load_tokenizer(MODEL, "draft")
    with Device(settings, engine, tokenizer, template=Marked()) as device:
        report = await device.generate("ba de")
    assert [token.token_id for token in report.tokens] == alone(prompt)
    assert alone("ba de") != alone("user: ba de assistant:")


async def test_a_model_without_a_chat_format_continues_the_prompt() -> None:
    with Device.load(SETTINGS) as device:
        report = await device.generate("ba de")
    assert [token.token_id for token in report.tokens] == alone("ba de")


async def test_a_folder_with_a_chat_template_answers_in_it(text_pair: Path, tmp_path: Path) -> None:
    folder = tmp_path / "chatty"
    shutil.copytree(text_pair / "draft-d32", folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    (folder / "chat_template.jinja").write_text("Once {{ messages[0]['content'] }} upon")
    texts = []
    for model, prompt, is_raw in (
        (folder, "a time", False),
        (text_pair / "draft-d32", "Once a time upon", True),
        (folder, "a time", True),
    ):
        settings = DeviceSettings(
            draft=str(model), mode=Mode.EDGE, share=ShareLevel.NONE, max_tokens=12, temperature=1.0, seed=0, raw=is_raw
        )
        with Device.load(settings) as device:
            texts.append((await device.generate(prompt)).text)
    assert texts[0] != texts[2]


async def test_a_share_of_tokens_is_refused_where_the_cloud_judges_all_by_default() -> None:
    settings = DeviceSettings(draft=MODEL, cloud="ws://127.0.0.1:9", max_escalated=0.3)
    with Device.load(settings) as device, pytest.raises(ConfigError, match="max_escalated is 0.3"):
        await device.generate("ba de")


def test_a_vllm_draft_needs_no_ears(text_pair: Path) -> None:
    settings = DeviceSettings(draft=f"vllm:{text_pair / 'draft-d32'}", mode=Mode.CLOUD, cloud="ws://127.0.0.1:9")
    with Device.load(settings) as device:
        assert device.tokenizer.vocabulary.name == "draft-d32"
