"""Features of every clip and its variants, and what Whisper's layers hear in them, computed once and kept on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from skydraft.audio.voice import VoiceMeasurement, summarise, track
from skydraft.engines.log_mel import Level, LogMel
from training import augment
from training.clips import Clip, read_clips, split_of
from training.whisper import NUM_MEL_BINS, FrozenTower

LEVEL = Level(percentile=98.0, steps_per_unit=64)
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Variant(NamedTuple):
    """How a clip is spoken, and what it is recorded with."""

    speed: float = 1.0
    stretch: float = 1.0
    change: Change | None = None


def _line(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return augment.telephone(augment.add_gain(samples, generator.uniform(-5, 25)))


def _message(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return augment.opus(augment.add_gain(samples, generator.uniform(-10, 20)))


def _recorder(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return augment.aac(augment.add_gain(samples, generator.uniform(-15, 20)), int(generator.choice([16_000, 32_000])))


def _gain(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return augment.add_gain(samples, generator.uniform(-20, 20))


def _noise(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return augment.add_noise(samples, generator.uniform(8, 25), generator)


PLAIN, LAPTOP, TELEPHONE = 0, 1, 2
VARIANTS = (
    Variant(),
    Variant(change=augment.laptop),
    Variant(change=_line),
    Variant(speed=0.93),
    Variant(speed=1.07, change=_gain),
    Variant(stretch=1.1, change=_message),
    Variant(speed=0.87, change=_recorder),
    Variant(stretch=0.92, change=augment.add_room),
    Variant(speed=1.12, change=_noise),
    Variant(speed=0.96, change=augment.laptop),
    Variant(speed=1.04, change=_line),
    Variant(stretch=1.05, change=_gain),
)


class Rendering(NamedTuple):
    """One variant of one clip."""

    mel: np.ndarray  # int8 [num_frames, 80], levelled log-mel in steps of 1/64
    voice: np.ndarray  # float16 [num_frames, 2], pitch in octaves above 50 Hz (0 where unvoiced), level in dB / 100
    heard: np.ndarray  # float16 [num_tokens, 512]
    measurement: VoiceMeasurement  # of the voice, before it is recorded


@dataclass(frozen=True)
class Entry:
    """Where a rendering lies in the cache and whose it is."""

    clip_index: int
    variant: int
    offset: int  # first frame
    num_frames: int
    token_offset: int
    num_tokens: int
    measurement: VoiceMeasurement


class FeatureStore:
    """The cached renderings: memory-mapped arrays, and one entry for each rendering."""

    def __init__(self, folder: Path) -> None:
        rows = json.loads((folder / "entries.json").read_text(encoding="utf-8"))
        self.entries = [Entry(**{**row, "measurement": VoiceMeasurement(*row["measurement"])}) for row in rows]
        self._mel, self._voice, self._heard = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("mel", "voice", "heard")
        )

    def mel(self, entry: Entry) -> np.ndarray:
        """Levelled log-mel: float32 [num_frames, 80]."""
        return LEVEL.values(self._mel[entry.offset : entry.offset + entry.num_frames])

    def voice(self, entry: Entry) -> np.ndarray:
        """Pitch and level: float32 [num_frames, 2]."""
        voice: np.ndarray = self._voice[entry.offset : entry.offset + entry.num_frames].astype(np.float32)
        return voice

    def heard(self, entry: Entry) -> np.ndarray:
        """What Whisper's first layers hear: float16 [num_tokens, 512]."""
        heard: np.ndarray = self._heard[entry.token_offset : entry.token_offset + entry.num_tokens]
        return heard


def log_mel() -> LogMel:
    """The features that ship with the models."""
    return LogMel(NUM_MEL_BINS, level=LEVEL)


def render(samples: np.ndarray, variant: Variant) -> np.ndarray:
    """The voice: faster or slower, or as it is."""
    if variant.speed != 1.0:
        samples = augment.change_speed(samples, variant.speed)
    if variant.stretch != 1.0:
        samples = augment.stretch(samples, variant.stretch)
    return samples


def compute(speech: Path, whisper: str, folder: Path) -> FeatureStore:
    """Fill the cache folder unless it is full, and open it."""
    if not (folder / "entries.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        jobs = list(enumerate(read_clips(speech)))
        num_processes = len(os.sched_getaffinity(0))
        with get_context("spawn").Pool(num_processes, _start, (whisper,)) as pool:
            _write(folder, pool.imap(_renderings, jobs, chunksize=4))
    return FeatureStore(folder)


_listener: list[FrozenTower] = []  # one in each process


def _start(whisper: str) -> None:
    torch.set_num_threads(1)
    _listener.append(FrozenTower(whisper))


def _renderings(job: tuple[int, Clip]) -> list[Rendering]:
    index, clip = job
    samples = clip.samples()
    return [_rendering(samples, index, variant) for variant in _variants(clip)]


def _variants(clip: Clip) -> range:
    """All variants for training; for the rest the clip itself, and laptop and telephone to follow robustness."""
    return range(len(VARIANTS)) if split_of(clip.actor) == "train" else range(TELEPHONE + 1)


def _rendering(samples: np.ndarray, clip_index: int, variant: int) -> Rendering:
    how = VARIANTS[variant]
    voice = render(samples, how)
    followed = track(voice)
    generator = np.random.default_rng([clip_index, variant])
    sound = log_mel()(voice if how.change is None else how.change(voice, generator))
    mel = np.frombuffer(sound.data, np.int8).reshape(sound.shape).T
    pitch = np.log2(np.maximum(followed.pitch_hz, 50.0) / 50.0)
    heard = _listener[0](torch.from_numpy(LEVEL.values(mel)))
    return Rendering(
        mel,
        np.column_stack([pitch[: len(mel)], followed.level_db[: len(mel)] / 100]).astype(np.float16),
        heard.numpy().astype(np.float16),
        summarise(followed),
    )


def _write(folder: Path, clips: Any) -> None:
    entries: list[Entry] = []
    parts: list[Rendering] = []
    frames = tokens = 0
    for clip_index, renderings in enumerate(clips):
        for variant, part in enumerate(renderings):
            num_frames, num_tokens = len(part.mel), len(part.heard)
            entries.append(Entry(clip_index, variant, frames, num_frames, tokens, num_tokens, part.measurement))
            parts.append(part)
            frames, tokens = frames + num_frames, tokens + num_tokens
    np.save(folder / "mel.npy", np.concatenate([part.mel for part in parts]))
    np.save(folder / "voice.npy", np.concatenate([part.voice for part in parts]))
    np.save(folder / "heard.npy", np.concatenate([part.heard for part in parts]))
    (folder / "entries.json").write_text(json.dumps([asdict(entry) for entry in entries]), encoding="utf-8")
