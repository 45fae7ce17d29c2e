"""Hybrid text == cloud-only text, token for token, with GGUF drafts and GGUF targets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from skydraft.config import CloudSettings, DeviceSettings
from skydraft.core import Exact, Mode, Origin, Prompt, SamplingParams, TokenSegment
from skydraft.decoding.edge_session import EdgeSession
from skydraft.edge.device import Device
from skydraft.edge.local_cloud import local_cloud
from skydraft.edge.report import Report
from skydraft.engines.base import Engine
from tests.linked import Linked, cloud_only, random_tree
from tests.llamacpp.installed import require_llamacpp

require_llamacpp()

PROMPT = Prompt((TokenSegment((1, 20, 30)),))
SAMPLINGS = [
    SamplingParams(max_tokens=24),
    SamplingParams(temperature=0.8, seed=1, max_tokens=24),
    SamplingParams(temperature=1.3, top_k=50, top_p=0.9, seed=2**63 + 5, max_tokens=24, end_ids=(2,)),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("seed", range(3))
def test_offered_trees_and_chains_leave_the_targets_text(
    start: Callable[..., Engine], sampling: SamplingParams, seed: int
) -> None:
    truth = cloud_only(start(), sampling, PROMPT)
    engine, rng = start(num_slots=2), Random(seed)
    linked = Linked(EdgeSession(engine.vocabulary, PROMPT, sampling, Exact()), engine, CloudSettings())
    linked.open()
    while not linked.session.is_complete:
        linked.session.offer(*random_tree(rng, truth, len(linked.session.token_ids), rng.randint(1, 8)))
        linked.send_due()
        linked.settle()
        assert list(linked.session.token_ids) == truth[: len(linked.session.token_ids)]
    assert list(linked.session.token_ids) == truth


async def write(draft: Path, cloud: str, mode: Mode, prompt: str, **settings: object) -> Report:
    asked = DeviceSettings(draft=str(draft), cloud=cloud, mode=mode, raw=True, num_threads=1)
    with Device.load(replace(asked, **settings)) as device:
        return await device.generate(prompt)


async def compare(draft: Path, target: Path, way: str, prompts: list[str], max_tokens: int) -> int:
    """Write each prompt's text alone and together; returns how many drafted tokens held."""
    num_accepted = 0
    async with local_cloud(str(target), "--threads", "1") as cloud:
        for seed, prompt in enumerate(prompts):
            sampling = {"temperature": 0.7 * (seed % 2), "seed": seed, "max_tokens": max_tokens}
            hybrid = await write(draft, cloud, Mode.HYBRID, prompt, way=way, **sampling)
            alone = await write(draft, cloud, Mode.CLOUD, prompt, **sampling)
            assert [token.token_id for token in hybrid.tokens] == [token.token_id for token in alone.tokens]
            assert hybrid.text == alone.text
            num_accepted += hybrid.num_by_origin[Origin.ACCEPTED]
    return num_accepted


@pytest.mark.parametrize(
    ("draft", "target", "way", "least_accepted"),
    [
        ("F32", "F32", "tree", 20),
        ("Q8_0", "folder", "wait:4", 5),
        ("folder", "F32", "tree", 20),
        ("Q4_0", "F32", "auto", 0),
    ],
)
async def test_texts_are_the_clouds_own(
    written: Callable[..., Path], twin: Path, draft: str, target: str, way: str, least_accepted: int
) -> None:
    ours, theirs = (twin if kind == "folder" else written(kind) for kind in (draft, target))
    assert await compare(ours, theirs, way, ["on tent", "a tale"], max_tokens=40) >= least_accepted


@pytest.mark.text
async def test_real_stories_are_the_clouds_own(text_pair: Path, tmp_path: Path) -> None:
    from gguf import GGMLQuantizationType

    from tests.llamacpp import files

    prompts = [json.loads(line)["prompt"] for line in (text_pair / "prompts.jsonl").read_text().splitlines()][:2]
    draft = files.convert_folder(text_pair / "draft-d64", tmp_path / "d64.gguf", GGMLQuantizationType.Q8_0)
    assert await compare(draft, text_pair / "target", "wait:5", prompts, max_tokens=60) >= 20
    target = files.convert_folder(text_pair / "target", tmp_path / "target.gguf")
    assert await compare(draft, target, "tree", prompts, max_tokens=60) >= 20
