"""Training examples from cached features: random cuts, colours, noise and masks on the fly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from training.features import Entry
from training.material import Material
from training.whisper import NUM_MEL_BINS

FRAMES_PER_TOKEN = 4


@dataclass(frozen=True)
class Disturbance:
    """How strongly log-mels are changed while training; log-mel units are 40 dB."""

    full_clip_share: float = 0.3  # of batches; in the others silence is cut to at most margin_frames
    margin_frames: int = 32
    gain: float = 0.03
    tilt: float = 0.06
    noise_share: float = 0.1
    mask_bins: int = 8
    mask_frames: int = 10


class Example(NamedTuple):
    """A part of one rendering."""

    mel: np.ndarray  # float32 [num_frames, 80]
    heard: np.ndarray  # float32 [num_tokens, 512]
    pitch: np.ndarray  # float32 [num_tokens], octaves above 50 Hz, mean of the voiced frames, 0 where none
    level: np.ndarray  # float32 [num_tokens], dB / 100 below the loudest


class Batch(NamedTuple):
    """Renderings with their targets; the tower takes frames of all clips in a row."""

    mel: torch.Tensor  # float32 [80, total_frames]
    heard: torch.Tensor  # float32 [total_tokens, 512]
    num_frames: torch.Tensor  # int64 [num_clips]
    num_tokens: torch.Tensor  # int64 [num_clips]
    emotion: torch.Tensor  # float32 [num_clips, 8], sums to 1
    facts: torch.Tensor  # float32 [num_clips, 3], strong, female, statement
    pitch: torch.Tensor  # float32 [total_tokens]
    level: torch.Tensor  # float32 [total_tokens]
    statistics: torch.Tensor  # float32 [num_clips, num_statistics], the teacher's
    entries: tuple[Entry, ...]


class Loader:
    """Draws batches from the entries of some clips."""

    def __init__(self, material: Material, entries: Sequence[Entry], seed: int) -> None:
        self.entries = list(entries)
        self._material = material
        self._generator = np.random.default_rng(seed)

    def epoch(self, batch_size: int, disturbance: Disturbance) -> Iterator[Batch]:
        """One rendering of every clip; clips of about one length share a batch, batches come in random order."""
        by_clip: dict[int, list[Entry]] = {}
        for entry in self.entries:
            by_clip.setdefault(entry.clip_index, []).append(entry)
        chosen = [variants[self._generator.integers(len(variants))] for variants in by_clip.values()]
        ranked = sorted(chosen, key=lambda e: e.measurement.active_s * self._generator.uniform(0.85, 1.15))
        starts = range(0, len(ranked) - batch_size + 1, batch_size)
        for start in self._generator.permutation(list(starts)):
            entries = ranked[start : start + batch_size]
            is_full = self._generator.random() < disturbance.full_clip_share
            yield self._collated(entries, [self._disturbed(entry, disturbance, is_full) for entry in entries])

    def plain(self, batch_size: int = 16) -> Iterator[Batch]:
        """Every entry once, undisturbed, in order."""
        for start in range(0, len(self.entries), batch_size):
            entries = self.entries[start : start + batch_size]
            yield self._collated(entries, [self._part(entry, 0, entry.num_frames) for entry in entries])

    def _disturbed(self, entry: Entry, by: Disturbance, is_full: bool) -> Example:
        """Cut the silence unless the full clip is wanted; recolour, add noise, mask."""
        first, end = 0, entry.num_frames
        if not is_full:
            first = max(0, entry.measurement.first_frame - int(self._generator.integers(by.margin_frames)))
            end = min(end, entry.measurement.end_frame + int(self._generator.integers(by.margin_frames)))
        if end - first < 40:
            first, end = 0, entry.num_frames
        example = self._part(entry, first, end)
        gain = self._generator.normal(0, by.gain)
        mel = example.mel + (gain + _colour(by.tilt, self._generator)).astype(np.float32)
        if self._generator.random() < by.noise_share:
            mel = _noisy(mel, self._generator)
        _mask(mel, by, self._generator)
        return example._replace(mel=mel)

    def _part(self, entry: Entry, first: int, end: int) -> Example:
        """The frames from `first` to `end`, moved to borders of tokens."""
        store, first_token = self._material.store, first // FRAMES_PER_TOKEN
        first = first_token * FRAMES_PER_TOKEN
        if end < entry.num_frames:
            end = min(entry.num_frames, (end // FRAMES_PER_TOKEN + 1) * FRAMES_PER_TOKEN)
        num_tokens = ((end - first - 1) // 2 + 1 - 2) // 2 + 1
        heard = store.heard(entry)[first_token : first_token + num_tokens].astype(np.float32)
        pitch, level = _per_token(store.voice(entry)[first:end], num_tokens)
        return Example(store.mel(entry)[first:end], heard, pitch, level)

    def _collated(self, entries: Sequence[Entry], examples: list[Example]) -> Batch:
        clips = [self._material.clips[entry.clip_index] for entry in entries]
        rows, lessons = self._material.indices(entries), self._material.lessons
        return Batch(
            mel=torch.from_numpy(np.concatenate([example.mel for example in examples]).T.copy()),
            heard=torch.from_numpy(np.concatenate([example.heard for example in examples])),
            num_frames=torch.tensor([len(example.mel) for example in examples]),
            num_tokens=torch.tensor([len(example.heard) for example in examples]),
            emotion=torch.from_numpy(lessons.emotion[rows]),
            facts=torch.tensor(
                [[float(c.is_strong), float(c.is_female), float(c.transcript.startswith("Dogs"))] for c in clips]
            ),
            pitch=torch.from_numpy(np.concatenate([example.pitch for example in examples])),
            level=torch.from_numpy(np.concatenate([example.level for example in examples])),
            statistics=torch.from_numpy(lessons.statistics[rows]),
            entries=tuple(entries),
        )


def _colour(strength: float, generator: np.random.Generator) -> np.ndarray:
    """A smooth random frequency response in log-mel units: float [80]."""
    x = np.linspace(-0.5, 0.5, NUM_MEL_BINS)
    return (
        generator.normal(0, strength) * x
        + generator.normal(0, strength / 2) * np.cos(2 * np.pi * x + generator.uniform(0, 6.3))
        + generator.normal(0, strength / 3) * np.cos(5 * np.pi * x + generator.uniform(0, 6.3))
    )


def _noisy(mel: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Add stationary noise 15 to 50 dB below the loudest bin, in the power domain."""
    floor = mel.max() - generator.uniform(0.4, 1.25) + _colour(0.3, generator)
    power = 10 ** (4 * mel) + 10 ** (4 * (floor + generator.normal(0, 0.06, mel.shape)))
    noisy: np.ndarray = np.log10(power) / 4
    return noisy.astype(np.float32)


def _mask(mel: np.ndarray, by: Disturbance, generator: np.random.Generator) -> None:
    mean = mel.mean()
    width, start = generator.integers(by.mask_bins), generator.integers(NUM_MEL_BINS)
    mel[:, start : start + width] = mean
    width, start = generator.integers(by.mask_frames), generator.integers(len(mel))
    mel[start : start + width] = mean


def _per_token(voice: np.ndarray, num_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the frames of each audio token (40 ms): pitch over voiced frames only, and level."""
    length = num_tokens * FRAMES_PER_TOKEN
    frames = np.pad(voice, ((0, FRAMES_PER_TOKEN), (0, 0)), mode="edge")[:length].reshape(num_tokens, -1, 2)
    pitch, level = frames[..., 0], frames[..., 1]
    num_voiced = (pitch > 0).sum(axis=1)
    mean_pitch = np.where(num_voiced >= 2, pitch.sum(axis=1) / np.maximum(num_voiced, 1), 0)
    return mean_pitch.astype(np.float32), (level - level.max()).mean(axis=1).astype(np.float32)
