"""The labelled clips and their split by actor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

SAMPLE_RATE_HZ = 16_000
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised")

Split = Literal["train", "tune", "report"]
SPLIT_ACTORS: dict[Split, range] = {"train": range(1, 17), "tune": range(17, 19), "report": range(19, 21)}


@dataclass(frozen=True)
class Clip:
    """One recording and what its actor was asked for."""

    path: Path
    emotion: str
    is_strong: bool
    is_female: bool
    transcript: str
    actor: int

    @property
    def emotion_index(self) -> int:
        """Index into EMOTIONS."""
        return EMOTIONS.index(self.emotion)

    def samples(self) -> np.ndarray:
        """The recording: float32 [num_samples] in [-1, 1] at 16 kHz."""
        audio: np.ndarray
        audio, rate = soundfile.read(self.path, dtype="float32")
        if rate != SAMPLE_RATE_HZ or audio.ndim != 1:
            raise ValueError(f"{self.path} has {rate} Hz and shape {audio.shape}; expected mono at {SAMPLE_RATE_HZ} Hz")
        return audio


def read_clips(speech: Path) -> list[Clip]:
    """Read every clip that `labels.jsonl` lists, in its order."""
    with (speech / "labels.jsonl").open(encoding="utf-8") as lines:
        return [_clip(speech, json.loads(line)) for line in lines]


def split_of(actor: int) -> Split:
    """The split an actor belongs to; no actor is in two."""
    for split, actors in SPLIT_ACTORS.items():
        if actor in actors:
            return split
    raise ValueError(f"actor {actor} is in no split; the splits are {SPLIT_ACTORS}")


def _clip(speech: Path, label: Mapping[str, str]) -> Clip:
    return Clip(
        path=speech / label["file"],
        emotion=label["emotion"],
        is_strong=label["intensity"] == "strong",
        is_female=label["sex"] == "female",
        transcript=label["transcript"],
        actor=int(label["actor"]),
    )
