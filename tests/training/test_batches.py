from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from skydraft.audio.voice import VoiceMeasurement
from training.batches import FRAMES_PER_TOKEN, Disturbance, Loader
from training.clips import EMOTIONS
from training.features import Entry
from training.whisper import WIDTH

QUIET = Disturbance(full_clip_share=0, gain=0, tilt=0, noise_share=0, mask_bins=1, mask_frames=1)


def num_tokens(num_frames: int) -> int:
    return ((num_frames - 1) // 2 + 1 - 2) // 2 + 1


class NumberedStore:
    """Every frame and every token holds its own number."""

    def mel(self, entry: Entry) -> np.ndarray:
        return np.repeat(np.arange(entry.num_frames, dtype=np.float32)[:, None], 80, axis=1)

    def heard(self, entry: Entry) -> np.ndarray:
        return np.repeat(np.arange(entry.num_tokens, dtype=np.float16)[:, None], WIDTH, axis=1)

    def voice(self, entry: Entry) -> np.ndarray:
        frames = np.arange(entry.num_frames, dtype=np.float32)
        return np.stack([frames // FRAMES_PER_TOKEN + 1, -frames], axis=1)


def loader(entries: list[Entry], seed: int = 0) -> Loader:
    clip = SimpleNamespace(is_strong=True, is_female=False, transcript="Dogs are sitting by the door.")
    rows = len(entries)
    lessons = SimpleNamespace(
        emotion=np.full((rows, len(EMOTIONS)), 1 / len(EMOTIONS), np.float32),
        statistics=np.zeros((rows, 3), np.float32),
    )
    material: Any = SimpleNamespace(
        store=NumberedStore(), clips=[clip] * rows, lessons=lessons, indices=lambda chosen: [e.variant for e in chosen]
    )
    return Loader(material, entries, seed)


def entry(clip_index: int, num_frames: int, first: int, end: int) -> Entry:
    measured = VoiceMeasurement(200, 8, -5, -38, (end - first) / 100, first, end)
    return Entry(clip_index, 0, 0, num_frames, 0, num_tokens(num_frames), measured)


@pytest.mark.parametrize("seed", range(20))
def test_frames_and_what_was_heard_in_them_are_cut_together(seed: int) -> None:
    random = np.random.default_rng(seed)
    entries = [entry(i, int(random.integers(200, 400)), 50 + i, 150 + 7 * i) for i in range(4)]
    (batch,) = loader(entries, seed).epoch(4, QUIET)
    assert batch.num_tokens.tolist() == [num_tokens(n) for n in batch.num_frames.tolist()]
    frames = torch.split(batch.mel[0], batch.num_frames.tolist())
    tokens = torch.split(batch.heard[:, 0], batch.num_tokens.tolist())
    pitches = torch.split(batch.pitch, batch.num_tokens.tolist())
    for whole, mel, heard, pitch in zip(batch.entries, frames, tokens, pitches, strict=True):
        assert mel[0] == FRAMES_PER_TOKEN * heard[0]
        assert heard.tolist() == list(range(int(heard[0]), int(heard[0]) + len(heard)))
        assert heard[:-1].tolist() == (pitch[:-1] - 1).tolist()  # the last token may have fewer frames
        assert mel[0] <= whole.measurement.first_frame < whole.measurement.end_frame <= mel[-1] + 1
        assert mel[-1] < whole.num_frames


def test_plain_batches_are_whole_clips_in_order() -> None:
    entries = [entry(i, 300 + i, 100, 200) for i in range(5)]
    batches = list(loader(entries).plain(batch_size=2))
    assert [e for batch in batches for e in batch.entries] == entries
    assert [n for batch in batches for n in batch.num_frames.tolist()] == [300, 301, 302, 303, 304]


def test_an_epoch_has_one_variant_of_every_clip() -> None:
    entries = [entry(i, 300, 100, 200) for i in range(4) for _ in range(3)]
    (batch,) = loader(entries).epoch(4, Disturbance())
    assert sorted(e.clip_index for e in batch.entries) == [0, 1, 2, 3]
