"""What several test modules need: a chi-squared test, softmax the plain way, a model as a function of its context."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypedDict

import numpy as np
from hypothesis import strategies as st
from scipy.stats import chi2

from skydraft.core import SamplingParams
from skydraft.sampling.arrays import Array
from skydraft.sampling.noise import Stream, gumbel
from skydraft.sampling.warp import warp

ToArray: TypeAlias = Callable[[np.ndarray], Array]  # makes an array of the library under test


class Cut(TypedDict, total=False):
    """What SamplingParams cut off a distribution."""

    top_k: int
    top_p: float
    min_p: float


FALSE_ALARM = 1e-4  # how often a statistical test here would fail on right code if its seed were drawn anew

RNG = np.random.default_rng(42)
PEAKED = np.where(RNG.random((5, 3000)) < 0.01, 15.0, 0.0) + 2.5 * RNG.standard_normal((5, 3000))
FLAT = RNG.standard_normal((5, 3000))
UNIFORM = np.zeros((5, 3000))
POSITIONS = [0, 1, 9, 2**20, 5]

some_params = st.builds(
    SamplingParams,
    temperature=st.floats(0.05, 20),
    top_k=st.sampled_from([0, 1, 3, 50, 5000]),
    top_p=st.sampled_from([1.0, 0.95, 0.3]),
    min_p=st.sampled_from([0.0, 0.0, 0.05]),
    seed=st.integers(0, 2**64 - 1),
)


def perturbed(logits: np.ndarray, params: SamplingParams, positions: Sequence[int]) -> np.ndarray:
    """Warped logits plus the noise of every token: the definition."""
    warped = warp(logits, params)
    noise = gumbel(params.seed, np.array(positions)[:, None], np.arange(logits.shape[1])[None, :], Stream.TARGET)
    sums: np.ndarray = warped + noise
    return sums


def assert_law(counts: np.ndarray, probs: np.ndarray) -> None:
    """Chi-squared test that counts come from probs, both [num_outcomes]; rare outcomes are pooled."""
    assert counts[probs == 0].sum() == 0
    expected = probs * counts.sum()
    is_rare = expected < 5
    observed = np.append(counts[~is_rare], counts[is_rare].sum())
    expected = np.append(expected[~is_rare], expected[is_rare].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert chi2.sf(statistic, len(expected) - 1) > FALSE_ALARM, (statistic, observed, expected)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs: np.ndarray = weights / weights.sum(axis=-1, keepdims=True)
    return probs


class ContextModel:
    """Logits [vocab_size] that depend on the whole context, the same for the same context."""

    def __init__(self, vocab_size: int, salt: int = 0, spread: float = 1.5) -> None:
        self.vocab_size = vocab_size
        self._salt = salt
        self._spread = spread

    def logits(self, context: Sequence[int]) -> np.ndarray:
        seed = zlib.crc32(repr((self._salt, list(context))).encode())
        return np.random.default_rng(seed).standard_normal(self.vocab_size) * self._spread

    def rows(self, context: Sequence[int], token_ids: Sequence[int], parents: Sequence[int]) -> np.ndarray:
        """[num_nodes + 1, vocab_size] as an engine computes them for a draft after the context."""
        contexts = [list(context)]
        for parent, token_id in zip(parents, token_ids, strict=True):
            contexts.append([*contexts[parent], token_id])
        return np.stack([self.logits(each) for each in contexts])


def ulps(values: np.ndarray, truth: np.ndarray) -> float:
    """The largest distance in units in the last place of the truth, which may be of a wider type."""
    return float(np.max(np.abs(values - truth) / np.spacing(np.abs(truth.astype(np.float64)))))


def total_variation(first: np.ndarray, second: np.ndarray) -> float:
    return math.fsum(np.abs(first - second)) / 2
