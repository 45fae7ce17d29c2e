"""How unsure the draft is as a rule, for gates at a rate: `python -m training.calibrate --speech ../shared/speech`.

Reads a draft's folder and the clips of the tune speakers, and writes calibration.json beside the weights. Two minutes.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from skydraft.core import CALIBRATION_FILE, Calibration, Rank, SamplingParams, ShareLevel
from skydraft.edge.drafter import Block, LoneDrafter
from skydraft.engines.load import load_ears, load_engine, load_tokenizer
from skydraft.engines.settings import EngineSettings
from skydraft.models import embedded_path
from skydraft.policies.gate import EMOTION, SIGNAL_GATES, SignalGate, signals_of_words
from skydraft.tasks.caption import caption_prompts, emotion_ids
from training.clips import Clip, Split, read_clips, split_of

MATERIAL = "RAVDESS speech, speakers 17 and 18"
NUM_QUANTILES = 41
MAX_TOKENS = 64


def draft_captions(folder: Path, clips: Sequence[Clip]) -> list[Block]:
    """Caption clips greedily with the draft as a device runs it: each caption is a block, with the signals of gates."""
    model = str(folder)
    engine, tokenizer = load_engine(model, "draft", EngineSettings(num_threads=1)), load_tokenizer(model, "draft")
    hear, vocabulary = load_ears(model, "draft"), tokenizer.vocabulary
    if hear is None:
        raise ValueError(f"the model in {folder} cannot hear")
    sampling = SamplingParams(max_tokens=MAX_TOKENS, end_ids=tuple(vocabulary.end_ids))
    drafter, blocks = LoneDrafter(engine, sampling, Rank()), []
    for clip in clips:
        drafter.open(caption_prompts(tokenizer.encode, hear(clip.samples()), ShareLevel.NONE).edge)
        blocks.append(drafter.draft([], MAX_TOKENS, vocabulary.num_tokens))
        drafter.close()
    return blocks


def calibration(blocks: Sequence[Block], emotions: frozenset[int], weights: str) -> Calibration:
    """What each signal of a gate is at its worst in these texts.

    Args:
        emotions: ids of the tokens that begin a word for an emotion.
        weights: as `weights_digest` says.
    """
    worst: dict[str, list[float]] = {}
    for name, gate in SIGNAL_GATES.items():
        worst[name] = [gate.worst(block.signals) for block in blocks]
        worst[f"{EMOTION}{name}"] = [_of_emotion(gate, block, emotions) for block in blocks]
    shares = np.linspace(0, 1, NUM_QUANTILES)
    quantiles = {name: tuple(np.quantile(values, shares).round(6).tolist()) for name, values in worst.items()}
    return Calibration(MATERIAL, len(blocks), weights, quantiles)


def _of_emotion(gate: type[SignalGate], block: Block, emotions: frozenset[int]) -> float:
    """A text that names no emotion is escalated at no threshold, as if the model were certain."""
    named = signals_of_words(block.signals, block.token_ids, emotions)
    certain = 1.0 if gate.name == "margin" else 0.0
    return gate.worst(named) if named else certain


def weights_digest(folder: Path) -> str:
    """SHA-256 of a model's configuration and weights."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def calibrate(folder: Path, speech: Path, split: Split = "tune") -> None:
    """Write the calibration of a draft into its folder."""
    clips = [clip for clip in read_clips(speech) if split_of(clip.actor) == split]
    tokenizer = load_tokenizer(str(folder), "draft")
    found = calibration(draft_captions(folder, clips), emotion_ids(tokenizer.encode), weights_digest(folder))
    (folder / CALIBRATION_FILE).write_bytes(msgspec.json.encode(found) + b"\n")


def main() -> None:
    """Calibrate the shipped draft, or another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, default=Path("../shared/speech"))
    parser.add_argument("--draft", type=Path, default=embedded_path("draft"), help="the draft's folder")
    options = parser.parse_args()
    calibrate(options.draft, options.speech)


if __name__ == "__main__":
    main()
