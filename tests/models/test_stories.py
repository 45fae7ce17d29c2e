"""The story pair: small, one tokenizer, without ears; its target tells stories, and its draft guesses most of them."""

from __future__ import annotations

import re
from itertools import islice
from random import Random

import pytest

from skydraft.config import DeviceSettings
from skydraft.core import Finish, Mode
from skydraft.edge.device import Device
from skydraft.edge.report import Report
from skydraft.engines.load import load_ears, load_tokenizer
from skydraft.text.checkpoint import STORIES, STORIES_FOLDER
from training.story_texts import ANIMALS, NAMES, conversations, story

BEGINNINGS = ("Once upon a time,", "Once upon a time, there was a")
REQUESTS = {"Tell me about a fox.": "fox", "A story about Mia, please.": "Mia"}
AGREES = 0.5  # of the tokens, at least


def folder_bytes(name: str) -> int:
    return sum(path.stat().st_size for path in (STORIES_FOLDER / name).iterdir())


def test_it_is_small_enough_to_come_along() -> None:
    assert folder_bytes("draft") < 500_000
    assert 2 * folder_bytes("draft") < folder_bytes("target") < 1_500_000


def test_both_have_the_same_tokens_and_neither_hears() -> None:
    draft, target = (load_tokenizer(STORIES, role).vocabulary for role in ("draft", "target"))
    assert draft.tokens == target.tokens
    assert load_ears(STORIES, "draft") is load_ears(STORIES, "target") is None


async def written(prompt: str, folder: str) -> Report:
    settings = DeviceSettings(draft=f"numpy:{STORIES_FOLDER / folder}", mode=Mode.EDGE, max_tokens=400)
    with Device.load(settings) as device:
        return await device.generate(prompt)


@pytest.mark.parametrize("prompt", BEGINNINGS)
async def test_the_target_tells_a_story_to_its_end(prompt: str) -> None:
    report = await written(prompt, "target")
    assert report.finish is Finish.STOP
    assert 80 < len(report.text.split()) < 200
    assert any(report.text.count(name) > 2 for name in NAMES), report.text


@pytest.mark.parametrize(("request_", "word"), REQUESTS.items())
async def test_a_request_is_answered(request_: str, word: str) -> None:
    told = (await written(request_, "target")).text
    assert told.startswith(" Once")
    assert word in told.partition("\n")[0]


async def test_the_draft_guesses_most_of_what_the_target_writes() -> None:
    report = await written(BEGINNINGS[0], "target")
    device = Device.load(DeviceSettings(draft=STORIES, mode=Mode.EDGE, max_tokens=1))
    token_ids = [token.token_id for token in report.tokens]
    num_right = 0
    with device:
        for length in range(0, len(token_ids), 4):
            said = BEGINNINGS[0] + device.tokenizer.decode(token_ids[:length])
            guess = await device.generate(said)
            num_right += guess.tokens[0].token_id == token_ids[length]
    assert num_right > AGREES * len(token_ids[::4])


def test_the_texts_are_put_together_without_seams() -> None:
    for told in islice(conversations(Random(3)), 600):
        assert not re.search(r"[{}|]|  | a [aeio]| an [^aeio]", told), told
    asked, told = story(Random(4))
    assert any(word in told for word in re.findall(r"\w+", asked) if word in (*ANIMALS, *NAMES))
