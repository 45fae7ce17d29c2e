"""What the cloud is for: the emotion word of real captions, by mode, on speakers that neither model has heard.

Each clip of actors 19 and 20 is captioned by the device alone, by both with the audio kept on the device (UGSD's way),
by both with log-mel that leaves where the device is unsure and with log-mel that always leaves (exact), and by the
cloud alone, with the clip and without. The embedded pair, a cloud in a process of its own, loopback. Eight classes:
chance is 12.5 %.

Claims, for each way of writing: the share of captions whose emotion word is right; of clips whose evidence left; tokens
judged by the cloud, rounds and payload bytes up for each clip; seconds for each clip. And what evidence on demand keeps
of the cloud's lead over the device: unsure_gap_share, with bytes_up_unsure beside bytes_up_always. Claims behind
`noise.` are of the same clips in noise at 20 dB, where the device alone is worse off.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from bench.claims import Claim, parse_arguments, show
from bench.identity import SPEECH, unseen_clips
from skydraft.audio.read import Clip, read_clip
from skydraft.config import DeviceSettings
from skydraft.config.presets import Preset
from skydraft.core import Evidence, Mode, Origin, ShareLevel
from skydraft.edge.device import Device
from skydraft.edge.local_cloud import local_cloud
from skydraft.edge.report import Report
from skydraft.engines.load import load_calibration, load_engine, load_tokenizer
from skydraft.engines.log_mel import load_log_mel
from skydraft.engines.settings import EngineSettings
from skydraft.text.checkpoint import find_checkpoint
from training.captions import emotion_of
from training.conditions import CONDITIONS, PLAIN

NAMED = DeviceSettings(any_voice=True)  # an emotion of every clip: bench.confidence measures where none is named
FEATURES = replace(NAMED, share=ShareLevel.FEATURES)
WAYS = {
    "edge": replace(NAMED, mode=Mode.EDGE),
    "ugsd": DeviceSettings(any_voice=True, preset=Preset.UGSD),
    "unsure": FEATURES,
    "always": replace(FEATURES, evidence=Evidence.ALWAYS),
    "cloud": replace(FEATURES, mode=Mode.CLOUD),
    "cloud_unheard": replace(NAMED, mode=Mode.CLOUD),
}
ON_DEMAND = ("edge", "unsure", "always")
# What the clips went through, by what is put before the names of claims, with the ways that are measured.
RECORDINGS = {"": (PLAIN, tuple(WAYS)), "noise.": ("noise at 20 dB", ON_DEMAND)}


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    if not SPEECH.is_dir():
        raise SystemExit(f"bench.captions needs the recordings in {SPEECH}; see README.md for where they are from")
    clips = unseen_clips()
    show(asyncio.run(_measure(clips[::10] if arguments.quick else clips)), arguments.json)


async def _measure(clips: list[Path]) -> Iterable[Claim]:
    emotions = _emotions()
    reports: dict[str, list[Report]] = defaultdict(list)
    engine = load_engine("embedded", "draft", EngineSettings(num_threads=1))
    tokenizer = load_tokenizer("embedded", "draft")
    hear = load_log_mel(find_checkpoint("embedded", "draft"))
    calibration = load_calibration("embedded", "draft")
    async with local_cloud("embedded", "--threads", "1", "--prefix-cache", "0") as url:
        for (index, clip), (recording, (condition, ways)) in itertools.product(enumerate(clips), RECORDINGS.items()):
            heard = _recorded(read_clip(clip), condition, index)
            for way in ways:
                settings = replace(WAYS[way], cloud=url)
                with Device(settings, engine, tokenizer, hear, calibration=calibration) as device:
                    (window,) = await device.caption(heard)
                reports[f"{recording}{way}"].append(window.report)
    truths = [emotions[clip.name] for clip in clips]
    of_ways = [claim for way, written in reports.items() for claim in _claims(way, written, truths)]
    return [*of_ways, *(claim for recording in RECORDINGS for claim in _claims_on_demand(recording, reports, truths))]


def _recorded(clip: Clip, condition: str, index: int) -> Clip:
    return dataclasses.replace(clip, samples=CONDITIONS[condition](clip.samples, np.random.default_rng([1, index])))


def _claims_on_demand(recording: str, reports: dict[str, list[Report]], truths: list[str]) -> Iterator[Claim]:
    """What is kept of the cloud's lead, where it has one, and what that takes."""
    edge, unsure, always = (_num_right(reports[f"{recording}{way}"], truths) for way in ON_DEMAND)
    if always > edge:
        share = (unsure - edge) / (always - edge)
        yield Claim(f"{recording}unsure_gap_share", share, "of the cloud's lead", len(truths))
    for way in ("unsure", "always"):
        yield Claim(f"{recording}bytes_up_{way}", _bytes_up(reports[f"{recording}{way}"]), "a clip", len(truths))


def _num_right(reports: list[Report], truths: list[str]) -> int:
    return sum(emotion_of(report.text) == truth for report, truth in zip(reports, truths, strict=True))


def _bytes_up(reports: list[Report]) -> float:
    return statistics.mean(sum(report.disclosure.up.values()) for report in reports)


def _claims(way: str, reports: list[Report], truths: list[str]) -> Iterator[Claim]:
    num_clips = len(reports)
    num_judged = sum(len(report.tokens) - report.num_by_origin[Origin.EDGE] for report in reports)
    yield Claim(f"{way}.emotion_right", _num_right(reports, truths) / num_clips, "of clips", num_clips)
    num_told = sum(report.disclosure.has_evidence for report in reports)
    yield Claim(f"{way}.evidence_left", num_told / num_clips, "of clips", num_clips)
    yield Claim(f"{way}.judged", num_judged / sum(len(r.tokens) for r in reports), "of tokens", num_clips)
    yield Claim(f"{way}.rounds", statistics.mean(r.rounds for r in reports), "a clip", num_clips)
    yield Claim(f"{way}.bytes_up", _bytes_up(reports), "a clip", num_clips)
    yield Claim(f"{way}.seconds", statistics.median(r.total_s for r in reports), "s, median", num_clips)


def _emotions() -> dict[str, str]:
    rows = [json.loads(line) for line in (SPEECH / "labels.jsonl").read_text().splitlines()]
    return {Path(row["file"]).name: row["emotion"] for row in rows}


if __name__ == "__main__":
    main()
