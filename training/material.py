"""Everything that both models learn from: clips, features, facts, tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from training import captions, teacher, tokenizer
from training.architecture import HeardStatistics, PatchStatistics
from training.captions import Thresholds, Traits
from training.clips import EMOTIONS, Clip, Split, read_clips, split_of
from training.features import PLAIN, Entry, FeatureStore, compute
from training.teacher import Lessons
from training.whisper import WIDTH

_NUM_TOKENIZER_CAPTIONS = 6_000


@dataclass(frozen=True)
class Material:
    """The clips with their cached features and measured facts."""

    clips: list[Clip]
    store: FeatureStore
    limits: Thresholds
    tokenizer: PreTrainedTokenizerFast
    lessons: Lessons

    def entries(self, split: Split, variant: int | None = PLAIN) -> list[Entry]:
        """Renderings of a split: one variant, or all with None."""
        return [
            entry
            for entry in self.store.entries
            if split_of(self.clips[entry.clip_index].actor) == split and variant in (None, entry.variant)
        ]

    def indices(self, entries: Sequence[Entry]) -> list[int]:
        """Rows of the entries in the lessons."""
        return [self._rows[entry.offset] for entry in entries]

    def imagined(self, entry: Entry, generator: np.random.Generator) -> Traits:
        """The facts of a rendering with an emotion drawn from its softened label: a caption to learn from."""
        shares = self.lessons.emotion[self._rows[entry.offset]].astype(np.float64)
        emotion = EMOTIONS[generator.choice(len(EMOTIONS), p=shares / shares.sum())]
        return replace(self.facts(entry), emotion=emotion)

    @cached_property
    def _rows(self) -> dict[int, int]:
        return {entry.offset: row for row, entry in enumerate(self.store.entries)}

    def patch_statistics(self) -> PatchStatistics:
        """Mean and whitening of three-frame patches of clean train speech."""
        patches = []
        for entry in self.entries("train")[::3]:
            mel = self.store.mel(entry)[entry.measurement.first_frame : entry.measurement.end_frame]
            patches.append(np.concatenate([mel[:-2], mel[1:-1], mel[2:]], axis=1)[::4])
        frames = np.concatenate(patches)
        variance, components = np.linalg.eigh(np.cov(frames.T))
        whitening = (components / np.sqrt(variance.clip(1e-6))).T[::-1].copy()
        return PatchStatistics(torch.from_numpy(frames.mean(0)), torch.from_numpy(whitening.astype(np.float32)))

    @cached_property
    def heard_statistics(self) -> HeardStatistics:
        """Of what Whisper's layers hear in train clips of every variant, normed as the tower norms it."""
        tokens = [self.store.heard(entry)[::4] for entry in self.entries("train", None)[::5]]
        normed = torch.nn.functional.layer_norm(torch.from_numpy(np.concatenate(tokens)).float(), (WIDTH,))
        return HeardStatistics(normed.mean(0), normed.std(0))

    def facts(self, entry: Entry) -> Traits:
        """What is true of a rendering."""
        return captions.traits(self.clips[entry.clip_index], entry.measurement, self.limits)


def gather(speech: Path, whisper: str, cache: Path) -> Material:
    """Compute features or open the cached ones, measure thresholds on the train split, learn the tokenizer."""
    clips = read_clips(speech)
    store = compute(speech, whisper, cache / "features")
    train = [e for e in store.entries if e.variant == PLAIN and split_of(clips[e.clip_index].actor) == "train"]
    limits = captions.thresholds([clips[e.clip_index] for e in train], [e.measurement for e in train])
    generator = np.random.default_rng(0)
    texts = [
        captions.caption(captions.traits(clips[e.clip_index], e.measurement, limits), generator)
        for e in train * (_NUM_TOKENIZER_CAPTIONS // len(train) + 1)
    ]
    prompts = [tokenizer.prompt(0)] * 200
    is_train = np.array([split_of(clips[e.clip_index].actor) == "train" for e in store.entries])
    taught = teacher.lessons(cache / "features", store, clips, is_train)
    return Material(clips, store, limits, tokenizer.train([*texts, *prompts]), taught)
