"""Training examples from cached features: random crops, warps, masks and mixtures on the fly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from training.features import NUM_MEL_BINS, Entry
from training.material import Material

_FRAMES_PER_TOKEN = 4


@dataclass(frozen=True)
class Disturbance:
    """How strongly log-mels are changed while training; log-mel units are 40 dB."""

    full_clip_share: float = 0.15  # of batches; in the others silence is cut to at most margin_frames
    margin_frames: int = 25
    time_warp: float = 0.05
    frequency_warp: float = 0.03
    gain: float = 0.05
    tilt: float = 0.06
    noise_share: float = 0.1
    num_masks: int = 1
    mask_bins: int = 10
    mask_frames: int = 10
    mixture_share: float = 0.0


class Example(NamedTuple):
    """One disturbed rendering."""

    mel: np.ndarray  # float32 [num_frames, 128]
    pitch: np.ndarray  # float32 [num_frames], octaves above 50 Hz, 0 where unvoiced
    level: np.ndarray  # float32 [num_frames], dB / 100


class Batch(NamedTuple):
    """Renderings with their targets; the tower takes frames of all clips in a row."""

    mel: torch.Tensor  # float32 [128, total_frames]
    num_frames: torch.Tensor  # int64 [num_clips]
    num_tokens: torch.Tensor  # int64 [num_clips]
    emotion: torch.Tensor  # float32 [num_clips, 8], sums to 1
    strong: torch.Tensor  # float32 [num_clips]
    female: torch.Tensor  # float32 [num_clips]
    statement: torch.Tensor  # float32 [num_clips]
    pitch: torch.Tensor  # float32 [total_tokens], mean of the voiced frames, 0 where none
    level: torch.Tensor  # float32 [total_tokens]
    statistics: torch.Tensor  # float32 [num_clips, num_statistics], the teacher's
    is_pure: torch.Tensor  # bool [num_clips], False where two clips were mixed
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
            yield self._batch(ranked[start : start + batch_size], disturbance)

    def plain(self, batch_size: int = 16) -> Iterator[Batch]:
        """Every entry once, undisturbed, in order."""
        for start in range(0, len(self.entries), batch_size):
            entries = self.entries[start : start + batch_size]
            examples = [self._plain(entry) for entry in entries]
            yield self._collated(entries, examples, self._emotions(entries), np.ones(len(entries), bool))

    def _batch(self, entries: list[Entry], disturbance: Disturbance) -> Batch:
        is_full = self._generator.random() < disturbance.full_clip_share
        examples = [disturbed(self._plain(e), e, disturbance, is_full, self._generator) for e in entries]
        emotions = self._emotions(entries)
        is_pure = self._generator.random(len(entries)) >= disturbance.mixture_share
        partner = self._generator.permutation(len(entries))
        mixed, mixed_emotions = list(examples), emotions.copy()
        for index in np.flatnonzero(~is_pure):
            share = self._generator.beta(0.5, 0.5)
            share = max(share, 1 - share)
            mixed[index] = _mixture(examples[index], examples[partner[index]], share)
            mixed_emotions[index] = share * emotions[index] + (1 - share) * emotions[partner[index]]
        return self._collated(entries, mixed, mixed_emotions, is_pure)

    def _emotions(self, entries: Sequence[Entry]) -> np.ndarray:
        return self._material.lessons.emotion[self._material.indices(entries)]

    def _plain(self, entry: Entry) -> Example:
        channels = self._material.store.channels(entry).astype(np.float32)
        return Example(channels[:, :NUM_MEL_BINS], channels[:, NUM_MEL_BINS], channels[:, NUM_MEL_BINS + 1])

    def _collated(
        self, entries: Sequence[Entry], examples: list[Example], emotions: np.ndarray, is_pure: np.ndarray
    ) -> Batch:
        clips = [self._material.clips[entry.clip_index] for entry in entries]
        num_frames = torch.tensor([len(example.mel) for example in examples])
        num_tokens = ((num_frames - 1) // 2 + 1 - 2) // 2 + 1
        pooled = [_per_token(example, int(n)) for example, n in zip(examples, num_tokens, strict=True)]
        return Batch(
            mel=torch.from_numpy(np.concatenate([example.mel for example in examples]).T.copy()),
            num_frames=num_frames,
            num_tokens=num_tokens,
            emotion=torch.from_numpy(emotions),
            strong=torch.tensor([float(clip.is_strong) for clip in clips]),
            female=torch.tensor([float(clip.is_female) for clip in clips]),
            statement=torch.tensor([float(clip.transcript.startswith("Dogs")) for clip in clips]),
            pitch=torch.from_numpy(np.concatenate([pitch for pitch, _ in pooled])),
            level=torch.from_numpy(np.concatenate([level for _, level in pooled])),
            statistics=torch.from_numpy(self._material.lessons.statistics[self._material.indices(entries)]),
            is_pure=torch.from_numpy(is_pure),
            entries=tuple(entries),
        )


def disturbed(
    example: Example, entry: Entry, by: Disturbance, is_full: bool, generator: np.random.Generator
) -> Example:
    """Crop the silence unless the full clip is wanted, warp time and frequency, recolour, add noise, mask."""
    first, end = 0, len(example.mel)
    if not is_full:
        first = max(0, entry.measurement.first_frame - int(generator.integers(by.margin_frames)))
        end = min(end, entry.measurement.end_frame + int(generator.integers(by.margin_frames)))
    if end - first < 40:
        first, end = 0, len(example.mel)
    warp = 1 + generator.uniform(-by.time_warp, by.time_warp)
    at = np.linspace(first, end - 1, int((end - first) * warp))
    nearest = np.rint(at).astype(int)
    low = np.floor(at).astype(int)
    part = (at - low)[:, None].astype(np.float32)
    mel = example.mel[low] * (1 - part) + example.mel[np.minimum(low + 1, len(example.mel) - 1)] * part
    factor = 1 + generator.uniform(-by.frequency_warp, by.frequency_warp)
    mel = _warped(mel, factor)
    voiced = example.pitch[nearest]
    pitch = np.where(voiced > 0, voiced + np.log2(factor), 0).astype(np.float32)
    gain = generator.normal(0, by.gain)
    mel = mel + (gain + _colour(by.tilt, generator)).astype(np.float32)
    if generator.random() < by.noise_share:
        mel = _noisy(mel, generator)
    _mask(mel, by, generator)
    return Example(mel, pitch, example.level[nearest])


def _warped(mel: np.ndarray, factor: float) -> np.ndarray:
    """Scale all frequencies by `factor`, as a shorter or longer vocal tract would."""
    source = _mel_bin(_bin_hz(np.arange(NUM_MEL_BINS)) / factor).clip(0, NUM_MEL_BINS - 1)
    low = np.floor(source).astype(int).clip(0, NUM_MEL_BINS - 2)
    part = (source - low).astype(np.float32)
    warped: np.ndarray = mel[:, low] * (1 - part) + mel[:, low + 1] * part
    return warped


_MEL_TOP = 15 + 27 * np.log(8.0) / np.log(6.4)  # 8 kHz on Slaney's scale


def _bin_hz(bins: np.ndarray) -> np.ndarray:
    mel = (bins + 1) * _MEL_TOP / (NUM_MEL_BINS + 1)
    hz: np.ndarray = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
    return hz


def _mel_bin(hz: np.ndarray) -> np.ndarray:
    mel = np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1.0) / 1000) / np.log(6.4))
    bins: np.ndarray = mel * (NUM_MEL_BINS + 1) / _MEL_TOP - 1
    return bins


def _colour(strength: float, generator: np.random.Generator) -> np.ndarray:
    """A smooth random frequency response in log-mel units: float [128]."""
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
    for _ in range(by.num_masks):
        width, start = generator.integers(by.mask_bins), generator.integers(NUM_MEL_BINS)
        mel[:, start : start + width] = mean
        width, start = generator.integers(by.mask_frames), generator.integers(len(mel))
        mel[start : start + width] = mean


def _mixture(one: Example, other: Example, share: float) -> Example:
    mel = one.mel * share
    length = min(len(one.mel), len(other.mel))
    mel[:length] += (1 - share) * other.mel[:length]
    mel[length:] += (1 - share) * other.mel.min()
    return Example(mel, one.pitch, one.level)


def _per_token(example: Example, num_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the frames of each audio token (40 ms): pitch over voiced frames only, and level."""
    length = num_tokens * _FRAMES_PER_TOKEN
    pitch = np.resize(np.pad(example.pitch, (0, _FRAMES_PER_TOKEN)), length).reshape(num_tokens, -1)
    level = np.pad(example.level, (0, _FRAMES_PER_TOKEN), mode="edge")[:length].reshape(num_tokens, -1)
    num_voiced = (pitch > 0).sum(axis=1)
    mean_pitch = np.where(num_voiced >= 2, pitch.sum(axis=1) / np.maximum(num_voiced, 1), 0)
    return mean_pitch.astype(np.float32), level.mean(axis=1).astype(np.float32)
