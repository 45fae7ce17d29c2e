"""Hybrid text == cloud-only text, token for token: real processes, real sockets, real models, real speech and text."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench import identity
from skydraft.config import DeviceSettings
from skydraft.core import Mode, Origin
from skydraft.edge.device import Device
from skydraft.edge.local_cloud import local_cloud
from tests.waiting import PATIENCE_S

NUM_CLIPS = 4
CASES = [
    ("draft-q4", 0.0, "tree"),
    ("draft-d64", 0.8, "pipelined:4"),
    ("draft-d32", 1.2, "wait:4"),
    ("draft-q4", 0.8, "auto"),
]


async def compare(clips: list[Path]) -> None:
    async with identity.open_bench() as bench:
        for clip in clips:
            for temperature, seed in identity.TEMPERATURES_AND_SEEDS:
                await bench.compare(clip, temperature, seed)
    for tally in bench.tallies.values():
        assert tally.different == []
        assert tally.num_texts == len(clips) * len(identity.TEMPERATURES_AND_SEEDS)
    assert bench.tallies["cut"].num_reconnects >= len(clips)


async def test_captions_of_unheard_speakers_are_the_clouds_own(unseen_clips: list[Path]) -> None:
    await compare(unseen_clips[:: len(unseen_clips) // NUM_CLIPS][:NUM_CLIPS])


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_every_caption_of_unheard_speakers_is_the_clouds_own(unseen_clips: list[Path]) -> None:
    await compare(unseen_clips)


async def test_stories_are_the_clouds_own_with_every_draft(text_pair: Path) -> None:
    prompts = [json.loads(line) for line in (text_pair / "prompts.jsonl").read_text().splitlines()]
    async with local_cloud(str(text_pair / "target"), "--threads", "1") as url:
        for prompt, name, temperature, way in zip(prompts, *zip(*CASES, strict=True), strict=False):
            settings = DeviceSettings(
                draft=str(text_pair / name), cloud=url, temperature=temperature, seed=11, max_tokens=60, way=way
            )
            with Device.load(settings) as device:
                hybrid = await device.generate(prompt["prompt"])
            with Device.load(replace(settings, mode=Mode.CLOUD)) as device:
                alone = await device.generate(prompt["prompt"])
            assert [token.token_id for token in hybrid.tokens] == [token.token_id for token in alone.tokens]
            assert hybrid.num_by_origin[Origin.ACCEPTED] > 10 or way == "auto"  # a fast cloud may need no draft
            assert hybrid.text == alone.text


async def test_stories_are_the_clouds_own_where_drafts_are_looked_up(text_pair: Path) -> None:
    prompt = json.loads((text_pair / "prompts.jsonl").read_text().splitlines()[0])["prompt"]
    target = str(text_pair / "target")
    async with local_cloud(target, "--threads", "1") as url:
        for temperature in (0.0, 0.8):
            settings = DeviceSettings(
                draft=f"lookup:{target}", cloud=url, temperature=temperature, seed=11, max_tokens=60
            )
            with Device.load(replace(settings, mode=Mode.CLOUD)) as device:
                alone = await device.generate(prompt)
            beside = replace(settings, draft=str(text_pair / "draft-q4"), lookup=True)
            for drafting in (settings, beside, replace(beside, way="tree")):
                with Device.load(drafting) as device:
                    for prediction in (None, alone.text, f"{alone.text[:80]} And then{alone.text[80:]}"):
                        text = await device.generate(prompt, prediction=prediction)
                        assert [token.token_id for token in text.tokens] == [token.token_id for token in alone.tokens]


WITH_A_VOCABULARY = """
import asyncio, json, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "safetensors"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from skydraft.config import DeviceSettings
from skydraft.edge.device import Device
folder, url, prompt = sys.argv[1:]
with Device.load(DeviceSettings(draft=f"lookup:{folder}", cloud=url, max_tokens=40)) as device:
    print(json.dumps([token.token_id for token in asyncio.run(device.generate(prompt, prediction=prompt)).tokens]))
"""


async def test_a_device_that_has_a_vocabulary_and_no_torch_writes_the_clouds_text(
    text_pair: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(text_pair / "target" / name, tmp_path / name)
    prompt = json.loads((text_pair / "prompts.jsonl").read_text().splitlines()[1])["prompt"]
    target = str(text_pair / "target")
    async with local_cloud(target, "--threads", "1") as url:
        with Device.load(DeviceSettings(draft=target, cloud=url, max_tokens=40, mode=Mode.CLOUD)) as device:
            alone = await device.generate(prompt)
        command = (sys.executable, "-c", WITH_A_VOCABULARY, str(tmp_path), url, prompt)
        run = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert run.stderr == ""
    assert json.loads(run.stdout) == [token.token_id for token in alone.tokens]
