"""How sure the draft may be: `python -m training.calibrate --speech ../shared/speech`. Five minutes of one core.

Reads a pair's folders and the clips, and writes calibration.json beside the draft's weights: how unsure the draft is as
a rule, for gates at a rate, and how often an emotion is right, from the clips of the tune speakers; and what it knows,
from those of the train speakers.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from scipy.optimize import minimize

from skydraft.core import (
    CALIBRATION_FILE,
    Calibration,
    EmotionConfidence,
    Prompt,
    Rank,
    SamplingParams,
    ShareLevel,
)  # fmt: skip
from skydraft.core.calibration import LEAST_PROBABILITY
from skydraft.edge.drafter import Block, LoneDrafter
from skydraft.engines.load import load_ears, load_engine, load_tokenizer
from skydraft.engines.log_mel import load_level, load_log_mel
from skydraft.engines.settings import EngineSettings
from skydraft.models import embedded_path
from skydraft.policies.gate import EMOTION, SIGNAL_GATES, SignalGate, signals_of_words
from skydraft.sampling.signals import relative_probabilities
from skydraft.tasks.caption import caption_prompts, emotion_tokens
from skydraft.tasks.emotions import by_emotion
from skydraft.text.checkpoint import Checkpoint, Role
from training.clips import Clip, read_clips, split_of
from training.conditions import CONDITIONS
from training.familiarity import KNOWN_CONDITIONS, familiarity

MATERIAL = "RAVDESS speech, speakers 17 and 18"
NUM_QUANTILES = 41
MAX_TOKENS = 64


class Captioner:
    """Captions sounds greedily with a model as a device runs it.

    Args:
        model: the name of one that hears. role: which, of the embedded pair.
    """

    def __init__(self, model: str, role: Role = "draft") -> None:
        engine, tokenizer = load_engine(model, role, EngineSettings(num_threads=1)), load_tokenizer(model, role)
        hear, vocabulary = load_ears(model, role), tokenizer.vocabulary
        if hear is None:
            raise ValueError(f"the model {model} cannot hear")
        sampling = SamplingParams(max_tokens=MAX_TOKENS, end_ids=tuple(vocabulary.end_ids))
        self._hear, self._encode, self._num_tokens = hear, tokenizer.encode, vocabulary.num_tokens
        self._drafter = LoneDrafter(engine, sampling, Rank())
        self.emotions = emotion_tokens(tokenizer.encode)

    def prompt(self, samples: np.ndarray) -> Prompt:
        """That asks how a voice sounds: samples float32 [num_samples] at 16 kHz."""
        return caption_prompts(self._encode, self._hear(samples), ShareLevel.NONE).edge

    def write(self, prompt: Prompt) -> Block:
        """A caption is a block, with the signals of gates."""
        self._drafter.open(prompt)
        block = self._drafter.draft([], MAX_TOKENS, self._num_tokens)
        self._drafter.close()
        return block

    def probabilities(self, prompt: Prompt, text_ids: Sequence[int]) -> dict[str, float]:
        """What the model gives each emotion where a text names one, having read what stands before that."""
        self._drafter.open(prompt)
        row = self._drafter.row_after(text_ids[: place_of(text_ids, self.emotions)])
        self._drafter.close()
        return by_emotion(self.emotions, relative_probabilities(row, list(self.emotions)))


class Named(NamedTuple):
    """An emotion that a caption names, and what the draft gives it."""

    probability: float
    is_right: bool


def place_of(token_ids: Sequence[int], emotions: Mapping[int, str]) -> int:
    """Where a caption names an emotion; its end where it names none."""
    return next((place for place, token_id in enumerate(token_ids) if token_id in emotions), len(token_ids))


def named_emotions(
    draft: Captioner, writer: Captioner, clips: Sequence[Clip], conditions: Sequence[str]
) -> list[Named]:
    """The emotions that a model's captions name, with what the draft, which hears the same, gives them."""
    found = []
    for index, clip in enumerate(clips):
        for condition in conditions:
            prompt = draft.prompt(CONDITIONS[condition](clip.samples(), np.random.default_rng([1, index])))
            text_ids = writer.write(prompt).token_ids
            place = place_of(text_ids, draft.emotions)
            if place < len(text_ids):
                emotion = draft.emotions[text_ids[place]]
                found.append(Named(draft.probabilities(prompt, text_ids)[emotion], emotion == clip.emotion))
    return found


def logistic(named: Sequence[Named]) -> tuple[float, float]:
    """Offset and slope that make of the log-odds of a probability those of being right (Platt 1999)."""
    shares = np.clip([name.probability for name in named], LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds, signs = np.log(shares / (1 - shares)), np.where([name.is_right for name in named], 1.0, -1.0)
    offset, slope = minimize(lambda x: np.logaddexp(0, -signs * (x[0] + x[1] * odds)).mean(), np.array([0.0, 1.0])).x
    return round(float(offset), 4), round(float(slope), 4)


def quantiles_of(blocks: Sequence[Block], emotions: Collection[int]) -> dict[str, tuple[float, ...]]:
    """What each signal of a gate is at its worst in these texts.

    Args:
        emotions: ids of the tokens that begin a word for an emotion.
    """
    worst: dict[str, list[float]] = {}
    for name, gate in SIGNAL_GATES.items():
        worst[name] = [gate.worst(block.signals) for block in blocks]
        worst[f"{EMOTION}{name}"] = [_of_emotion(gate, block, emotions) for block in blocks]
    shares = np.linspace(0, 1, NUM_QUANTILES)
    return {name: tuple(np.quantile(values, shares).round(6).tolist()) for name, values in worst.items()}


def _of_emotion(gate: type[SignalGate], block: Block, emotions: Collection[int]) -> float:
    """A text that names no emotion is escalated at no threshold, as if the model were certain."""
    named = signals_of_words(block.signals, block.token_ids, emotions)
    certain = 1.0 if gate.name == "margin" else 0.0
    return gate.worst(named) if named else certain


def weights_digest(folder: Path) -> str:
    """SHA-256 of a model's configuration and weights."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def calibrate(draft: Path, target: Path, train: Sequence[Clip], tune: Sequence[Clip]) -> None:
    """Write the calibration of a pair's draft into its folder."""
    device, cloud = Captioner(f"numpy:{draft}"), Captioner(f"numpy:{target}")
    blocks = [device.write(device.prompt(clip.samples())) for clip in tune]
    confidence = EmotionConfidence(
        logistic(named_emotions(device, device, tune, KNOWN_CONDITIONS)),
        logistic(named_emotions(device, cloud, tune, KNOWN_CONDITIONS)),
    )
    checkpoint = Checkpoint.open(draft)
    level = load_level(checkpoint)
    assert level is not None, "the pair hears levelled log-mel"
    found = Calibration(
        MATERIAL,
        len(blocks),
        weights_digest(draft),
        quantiles_of(blocks, device.emotions),
        confidence,
        familiarity(load_log_mel(checkpoint), level, train, tune),
    )
    (draft / CALIBRATION_FILE).write_bytes(msgspec.json.encode(found) + b"\n")


def main() -> None:
    """Calibrate the shipped draft, or another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, default=Path("../shared/speech"))
    parser.add_argument("--draft", type=Path, default=embedded_path("draft"), help="the draft's folder")
    parser.add_argument("--target", type=Path, default=embedded_path("target"), help="the target's folder")
    options = parser.parse_args()
    clips = read_clips(options.speech)
    train, tune = ([clip for clip in clips if split_of(clip.actor) == split] for split in ("train", "tune"))
    calibrate(options.draft, options.target, train, tune)


if __name__ == "__main__":
    main()
