"""Draft distributions that fit in a few bytes: quantise, then sample.

The draft is drawn from the rounded distribution that the cloud is told of, so rounding costs agreement and never
changes the distribution of the text.

Source: quantise-sample-and-verify, arXiv 2507.00605.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from skydraft.core import Lattice, LatticeDistribution, SamplingParams
from skydraft.sampling.arrays import Array, largest
from skydraft.sampling.gumbel_max import greedy_choices
from skydraft.sampling.logarithm import log
from skydraft.sampling.noise import Stream, gumbel
from skydraft.sampling.warp import probabilities, require_finite, warp


def to_lattice(logits_row: Array, params: SamplingParams, lattice: Lattice) -> LatticeDistribution:
    """Warp, cut to the lattice's top_k most probable tokens, and round to multiples of 1 / denominator.

    Args:
        logits_row: float [vocab_size].
    Returns:
        Tokens of weight 0 are left out.
    Raises:
        EngineError: the row has no finite largest logit.
    """
    require_finite(logits_row)
    if params.is_greedy:
        return LatticeDistribution((greedy_choices(logits_row[None, :])[0],), (lattice.denominator,))
    warped = warp(logits_row, params)
    values, indexes = largest(warped[None, :], lattice.top_k)
    probs = probabilities(values[0]).tolist()
    weights = round_to_lattice(probs, lattice.denominator)
    kept = [(token_id, weight) for token_id, weight in sorted(zip(indexes[0].tolist(), weights, strict=True)) if weight]
    return LatticeDistribution(tuple(token_id for token_id, _ in kept), tuple(weight for _, weight in kept))


def round_to_lattice(probs: Sequence[float], denominator: int) -> list[int]:
    """Weights that sum to denominator and are nearest to denominator * probs / sum(probs).

    Rounds each to the nearest, then takes 1 from those that were rounded up the most, or gives 1 to those that were
    rounded down the most, until the sum is right; of equal errors the first changes.
    """
    total = math.fsum(probs)
    exact = [denominator * prob / total for prob in probs]
    weights = [math.floor(value + 0.5) for value in exact]
    surplus = sum(weights) - denominator
    sign = 1 if surplus > 0 else -1
    order = sorted(range(len(probs)), key=lambda i: sign * (exact[i] - weights[i]))
    for index in order[: abs(surplus)]:
        weights[index] -= sign
    return weights


def draw(distribution: LatticeDistribution, seed: int, position: int) -> int:
    """A sample of the distribution by Gumbel-max, stream DRAFT: the token to offer at this position."""
    weights = np.asarray(distribution.weights, dtype=np.float64)
    token_ids = np.asarray(distribution.token_ids, dtype=np.int64)[weights > 0]
    sums = log(weights[weights > 0]) + gumbel(seed, position, token_ids, Stream.DRAFT)
    return int(token_ids[np.argmax(sums)])
