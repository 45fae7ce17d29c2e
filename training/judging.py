"""Scores of captions with intervals that resample speakers and clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training.captions import Traits, parse
from training.clips import EMOTIONS

_NUM_DRAWS = 10_000


class Share(NamedTuple):
    """A share, or a difference of two, with its 95 % interval."""

    value: float
    low: float
    high: float


def share(values: np.ndarray, actors: np.ndarray, seed: int = 0) -> Share:
    """The mean of values [num_clips], with an interval by a bootstrap in two levels.

    Each draw takes as many speakers as there are, with replacement, and of each as many of its clips. Values of two
    models on the same clips, subtracted, give the interval of a paired difference.
    """
    generator = np.random.default_rng(seed)
    groups = [values[actors == actor] for actor in np.unique(actors)]
    means = np.stack([_resampled_means(group, len(groups), generator) for group in groups])  # [speakers, draws, copies]
    weights = np.array([len(group) for group in groups], np.float64)
    chosen = generator.integers(len(groups), size=(_NUM_DRAWS, len(groups)))
    drawn = np.stack([means[chosen[:, copy], np.arange(_NUM_DRAWS), copy] for copy in range(len(groups))], axis=1)
    draws = (drawn * weights[chosen]).sum(axis=1) / weights[chosen].sum(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Share(float(values.mean()), float(low), float(high))


def _resampled_means(group: np.ndarray, num_copies: int, generator: np.random.Generator) -> np.ndarray:
    """Means of as many values, drawn with replacement: float [draws, copies]."""
    rows = generator.integers(len(group), size=(_NUM_DRAWS, num_copies, len(group)))
    means: np.ndarray = group.astype(np.float64)[rows].mean(axis=2)
    return means


def confusion(named: Sequence[str | None], truths: Sequence[str]) -> dict[str, dict[str, int]]:
    """What was meant, and what captions said."""
    counts = {truth: dict.fromkeys((*EMOTIONS, "none"), 0) for truth in EMOTIONS}
    for name, truth in zip(named, truths, strict=True):
        counts[truth][name or "none"] += 1
    return counts


def shuffled_right(named: Sequence[str | None], truths: Sequence[str]) -> float:
    """How often captions would be right of another clip than their own, drawn at random: the mean over all pairs."""
    return float(np.mean([[name == truth for truth in truths] for name in named]))


def facts_right(written: Sequence[str], facts: Sequence[Traits]) -> dict[str, float]:
    """Shares of captions of the grammar, and of those that state each fact as it was measured."""
    parsed = [parse(text) for text in written]
    names = ("is_female", "pitch_level", "movement", "loudness_level", "pace_level")
    return {
        "grammar": float(np.mean([stated is not None for stated in parsed])),
        **{
            name: float(
                np.mean([getattr(a, name, None) == getattr(b, name) for a, b in zip(parsed, facts, strict=True)])
            )
            for name in names
        },
    }
