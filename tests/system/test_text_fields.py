"""What an API asks of a text, with a real pair over real sockets: it is the cloud's own and as it was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from skydraft.config import DeviceSettings
from skydraft.core import Finish, Grammar, Mode, Origin
from skydraft.edge.device import Device
from skydraft.edge.local_cloud import local_cloud
from skydraft.edge.report import Report

END = "<|end_story|>"  # four tokens, in ordinary text
SENTENCE = Grammar("regex", r" ?[A-Z][a-z]+( [a-z]+){3,6}\.")  # what the vocabulary can spell: it has no braces
FIELDS: list[dict[str, Any]] = [
    {"min_p": 0.1, "frequency_penalty": 0.4},
    {"presence_penalty": 0.5, "repetition_penalty": 1.2, "top_logprobs": 2},
    {"stop": (END, " and", "."), "top_logprobs": 0},
    {"grammar": SENTENCE, "repetition_penalty": 1.1},
    {"grammar": SENTENCE, "min_p": 0.05},
]


@pytest.fixture
async def cloud(text_pair: Path) -> AsyncIterator[str]:
    async with local_cloud(str(text_pair / "target"), "--threads", "1") as url:
        yield url


async def write(settings: DeviceSettings, prompt: str, grammar: Grammar | None) -> Report:
    with Device.load(settings) as device:
        return await device.generate(prompt, grammar=grammar)


def logprobs_of(report: Report) -> list[float]:
    told = [token.logprobs for token in report.tokens if token.logprobs is not None]
    return [value for each in told for value in (each.logprob, *(logprob for _, logprob in each.top))]


async def test_stories_are_the_clouds_own_and_what_was_asked_for(cloud: str, text_pair: Path) -> None:
    prompts = [json.loads(line)["prompt"] for line in (text_pair / "prompts.jsonl").read_text().splitlines()]
    for number, (fields, prompt) in enumerate(zip(FIELDS, prompts, strict=False)):
        given = dict(fields)
        grammar = given.pop("grammar", None)
        settings = DeviceSettings(
            draft=str(text_pair / "draft-q4"),
            cloud=cloud,
            temperature=0.8 * (number % 2),
            seed=11,
            max_tokens=60,
            way=("tree", "wait:4")[number // 2 % 2],
            **given,
        )
        hybrid = await write(settings, prompt, grammar)
        alone = await write(replace(settings, mode=Mode.CLOUD), prompt, grammar)
        assert (hybrid.text, hybrid.finish, hybrid.stop) == (alone.text, alone.finish, alone.stop)
        assert [token.token_id for token in hybrid.tokens] == [token.token_id for token in alone.tokens]
        assert logprobs_of(hybrid) == pytest.approx(logprobs_of(alone), abs=1e-4)  # to the bit where rows are invariant
        assert hybrid.num_by_origin[Origin.ACCEPTED] > len(hybrid.tokens) / 4
        if grammar is not None:
            assert re.fullmatch(grammar.source, hybrid.text)
            assert hybrid.finish is Finish.STOP
        if "stop" in given:
            assert hybrid.stop in given["stop"]
            assert not any(stop in hybrid.text for stop in given["stop"])
