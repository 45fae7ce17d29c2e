"""Log-mel features of every clip and its augmented variants, computed once and kept on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import WhisperFeatureExtractor

from training import augment
from training.clips import SAMPLE_RATE_HZ, Clip, read_clips, split_of
from training.measure import Measurement, summarise, track

NUM_MEL_BINS = 128
NUM_CHANNELS = NUM_MEL_BINS + 2  # log-mel, pitch in octaves above 50 Hz (0 where unvoiced), level in dB / 100
_SPEEDS = (1.0, 0.87, 0.93, 1.07, 1.14, 1.0, 0.9, 1.1, 0.96, 1.04)
_STRETCHES = (1.0, 1.0, 1.1, 0.92, 1.0, 1.0, 1.05, 0.9, 1.15, 1.0)
_IS_LAPTOP = (False, False, False, False, False, True, True, True, True, True)
NUM_TRAIN_VARIANTS = len(_SPEEDS)


class Rendering(NamedTuple):
    """One variant of one clip."""

    channels: np.ndarray  # float16 [num_frames, NUM_CHANNELS]
    measurement: Measurement


@dataclass(frozen=True)
class Entry:
    """Where a rendering lies in the cache and whose it is."""

    clip_index: int
    variant: int
    offset: int  # first frame in the array
    num_frames: int
    measurement: Measurement


class FeatureStore:
    """The cached renderings: one array on disk, memory-mapped, and one entry for each rendering."""

    def __init__(self, folder: Path) -> None:
        rows = json.loads((folder / "entries.json").read_text(encoding="utf-8"))
        self.entries = [Entry(**{**row, "measurement": Measurement(*row["measurement"])}) for row in rows]
        self._array = np.load(folder / "channels.npy", mmap_mode="r")

    def channels(self, entry: Entry) -> np.ndarray:
        """float16 [num_frames, NUM_CHANNELS]: log-mel first, then pitch and level."""
        channels: np.ndarray = self._array[entry.offset : entry.offset + entry.num_frames]
        return channels


def feature_extractor() -> WhisperFeatureExtractor:
    """The extractor that ships with the models."""
    return WhisperFeatureExtractor(  # type: ignore[no-untyped-call]
        feature_size=NUM_MEL_BINS, sampling_rate=SAMPLE_RATE_HZ, hop_length=160
    )


def log_mel(samples: np.ndarray, extractor: WhisperFeatureExtractor) -> np.ndarray:
    """Log-mel of a recording as it is, without padding: float32 [num_samples // 160, 128]."""
    features = extractor(samples, sampling_rate=SAMPLE_RATE_HZ, padding="do_not_pad", truncation=False)
    return np.asarray(features["input_features"][0]).T


def render(samples: np.ndarray, variant: int) -> np.ndarray:
    """Variant 0 is the recording itself; the others speak faster or slower."""
    if _SPEEDS[variant] != 1.0:
        samples = augment.change_speed(samples, _SPEEDS[variant])
    if _STRETCHES[variant] != 1.0:
        samples = augment.stretch(samples, _STRETCHES[variant])
    return samples


def hear(samples: np.ndarray, variant: int, seed: int) -> np.ndarray:
    """What a microphone makes of a rendered voice; measurements are taken before this."""
    generator = np.random.default_rng([seed, variant, 1])
    return augment.laptop(samples, generator) if _IS_LAPTOP[variant] else samples


def compute(speech: Path, folder: Path, num_processes: int = 2) -> FeatureStore:
    """Fill the cache folder unless it is full, and open it."""
    if not (folder / "entries.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(clip, index) for index, clip in enumerate(read_clips(speech))]
        with get_context("spawn").Pool(num_processes) as pool:
            _write(folder, list(pool.imap(_renderings, jobs, chunksize=8)))
    return FeatureStore(folder)


def _renderings(job: tuple[Clip, int]) -> list[Rendering]:
    clip, seed = job
    extractor = feature_extractor()
    samples = clip.samples()
    return [_rendering(samples, variant, seed, extractor) for variant in _variants(clip)]


def _variants(clip: Clip) -> range | tuple[int, ...]:
    """All variants for training; for the rest the clip itself and, to measure robustness, one laptop variant."""
    return range(NUM_TRAIN_VARIANTS) if split_of(clip.actor) == "train" else (0, 5)


def _rendering(samples: np.ndarray, variant: int, seed: int, extractor: WhisperFeatureExtractor) -> Rendering:
    voice = render(samples, variant)
    followed = track(voice)
    mel = log_mel(hear(voice, variant, seed), extractor)
    pitch = np.log2(np.maximum(followed.pitch_hz, 50.0) / 50.0)
    channels = np.column_stack([mel, pitch[: len(mel)], followed.level_db[: len(mel)] / 100])
    return Rendering(channels.astype(np.float16), summarise(followed))


def _write(folder: Path, clips: list[list[Rendering]]) -> None:
    entries, offset = [], 0
    for clip_index, renderings in enumerate(clips):
        variants = range(NUM_TRAIN_VARIANTS) if len(renderings) == NUM_TRAIN_VARIANTS else (0, 5)
        for variant, rendering in zip(variants, renderings, strict=True):
            num_frames = len(rendering.channels)
            entries.append(Entry(clip_index, variant, offset, num_frames, rendering.measurement))
            offset += num_frames
    np.save(folder / "channels.npy", np.concatenate([r.channels for renderings in clips for r in renderings]))
    (folder / "entries.json").write_text(json.dumps([asdict(entry) for entry in entries]), encoding="utf-8")
