"""Gumbel-max without noise for the whole vocabulary."""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from skydraft.sampling.arrays import Array, at_indexes
from skydraft.sampling.noise import (
    LARGEST_GUMBEL,
    LEAST_GUMBEL,
    Seed,
    Stream,
    gumbel,
    seed_of_rows,
    vocabulary_gumbel,
    vocabulary_uniform,
)
from skydraft.sampling.warp import no_finite_logits

_SMALL_SIZE = 2**12  # elements: below, leaving tokens out costs more than their noise
_CONTIGUOUS_GAIN = 8  # how much less a token costs in `vocabulary_uniform` than in `gumbel`, roughly
_SLACK = 1e-9  # covers the rounding of exp, which differs between libraries


def gumbel_argmax(log_weights: Array, seed: Seed, positions: Array, stream: Stream) -> list[int]:
    """The token whose log weight plus Gumbel noise is largest: a sample in proportion to the weights.

    Tokens that cannot win are left out first, without changing the winner: noise is bounded, and an exponential race
    can be bounded without a logarithm.

    Args:
        log_weights: float64 [num_rows, vocab_size], of any scale; -inf is never sampled.
        seed: one for all, or one for each row, from `seeds_like`.
        positions: int64 [num_rows].
    Returns:
        A token id for each row; of equal sums the lowest.
    Raises:
        EngineError: a row has no finite largest value.
    """
    num_rows, vocab_size = log_weights.shape
    if num_rows * vocab_size <= _SMALL_SIZE:
        return winners(log_weights + vocabulary_gumbel(seed, positions, vocab_size, stream))
    xp = array_namespace(log_weights)
    is_contender = _within_reach(log_weights)
    (crowded,) = xp.nonzero(xp.count_nonzero(is_contender, axis=-1) * _CONTIGUOUS_GAIN > vocab_size)
    if crowded.shape[0]:  # these alone: a flat row of one text is not to cost the others
        of_crowded = log_weights[crowded], seed_of_rows(seed, crowded), positions[crowded]
        is_contender[crowded] = _within_bounds(*of_crowded, stream)
    rows, token_ids = xp.nonzero(is_contender)
    noise = gumbel(seed_of_rows(seed, rows), positions[rows], token_ids, stream)
    sums = xp.full_like(log_weights, -math.inf)
    sums[rows, token_ids] = log_weights[rows, token_ids] + noise
    return winners(sums)


def winners(scores: Array) -> list[int]:
    """Where the largest of each row [num_rows, vocab_size] is; of equal ones the first.

    Raises:
        EngineError: the largest of a row is not finite.
    """
    xp = array_namespace(scores)
    token_ids = xp.argmax(scores, axis=-1)
    is_finite = xp.isfinite(at_indexes(scores, token_ids))
    chosen, finite = xp.stack([token_ids, xp.astype(is_finite, token_ids.dtype)]).tolist()  # one transfer
    if 0 in finite:
        raise no_finite_logits()
    return list(chosen)


def _within_reach(log_weights: Array) -> Array:
    """Tokens that the largest possible noise would lift above the heaviest token with the least. bool as log_weights.

    Its own noise would leave out a few more and costs as much as that of all that are left.
    """
    xp = array_namespace(log_weights)
    return log_weights >= xp.max(log_weights, axis=-1, keepdims=True) + (LEAST_GUMBEL - LARGEST_GUMBEL)


def _within_bounds(log_weights: Array, seed: Seed, positions: Array, stream: Stream) -> Array:
    """Tokens that may win given their uniform number u. bool as log_weights.

    The winner has the largest weight / -log(u), and 1 - u <= -log(u) <= (1 - u) / u.
    """
    xp = array_namespace(log_weights)
    u = vocabulary_uniform(seed, positions, log_weights.shape[1], stream)
    at_most = xp.exp(log_weights - xp.max(log_weights, axis=-1, keepdims=True)) / (1.0 - u)
    return at_most >= xp.max(at_most * u, axis=-1, keepdims=True) * (1.0 - _SLACK)
