"""Gumbel-max in little time: the exact noise decides where quicker noise cannot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from array_api_compat import array_namespace

from skydraft.sampling.arrays import Array, at_indexes, integers_like, take_rows
from skydraft.sampling.noise import (
    LARGEST_GUMBEL,
    LEAST_GUMBEL,
    Seed,
    Stream,
    gumbel,
    rough_gumbel,
    seed_of_rows,
    seeds_like,
    uniform,
    vocabulary_uniform,
)
from skydraft.sampling.warp import no_finite_logits

Place: TypeAlias = tuple[int, int]  # a text's seed and a position in it

_SMALL_SIZE = 2**15  # elements: below, leaving tokens out costs more than their noise
_CONTIGUOUS_GAIN = 8  # how much less a token costs in `vocabulary_uniform` than in `uniform`, roughly
_SLACK = 1e-9  # far above what the logarithms of libraries differ by


def gumbel_argmax(log_weights: Array, places: Sequence[Place], stream: Stream) -> list[int]:
    """The token whose log weight plus Gumbel noise is largest: a sample in proportion to the weights.

    Args:
        log_weights: float64 [num_rows, vocab_size], of any scale; -inf is never sampled.
        places: of each row.
    Returns:
        A token id for each row; of equal sums the lowest.
    Raises:
        EngineError: a row has no finite largest value.
    """
    xp = array_namespace(log_weights)
    sums = _rough_sums(log_weights, places, stream)
    is_near = sums >= xp.max(sums, axis=-1, keepdims=True) - _SLACK
    if int(xp.count_nonzero(is_near)) == len(places):
        return greedy_choices(sums)
    rows, token_ids = xp.nonzero(is_near)
    seed, positions = _keys(places, log_weights)
    noise = gumbel(seed_of_rows(seed, rows), positions[rows], token_ids, stream)
    return greedy_choices(_at(log_weights, rows, token_ids, noise))


def _rough_sums(log_weights: Array, places: Sequence[Place], stream: Stream) -> Array:
    """Log weights plus noise, to the last bits but one; -inf where no noise makes a token win.

    Args: as `gumbel_argmax`.
    """
    xp = array_namespace(log_weights)
    num_rows, vocab_size = log_weights.shape
    if num_rows * vocab_size <= _SMALL_SIZE:
        return log_weights + _vocabulary_noise(log_weights, places, stream)
    is_contender = _within_reach(log_weights)
    (crowded,) = xp.nonzero(xp.count_nonzero(is_contender, axis=-1) * _CONTIGUOUS_GAIN > vocab_size)
    if crowded.shape[0] == num_rows:
        return log_weights + _vocabulary_noise(log_weights, places, stream)
    is_contender[crowded] = False
    rows, token_ids = xp.nonzero(is_contender)
    seed, positions = _keys(places, log_weights)
    noise = rough_gumbel(uniform(seed_of_rows(seed, rows), positions[rows], token_ids, stream))
    sums = _at(log_weights, rows, token_ids, noise)
    if crowded.shape[0]:  # these alone: a flat row of one text is not to cost the others
        of_crowded = log_weights[crowded]
        sums[crowded] = of_crowded + _vocabulary_noise(of_crowded, [places[row] for row in crowded.tolist()], stream)
    return sums


def greedy_choices(logits: Array) -> list[int]:
    """The most probable token of each row [num_rows, vocab_size]; of equal ones the lowest id.

    Raises:
        EngineError: a row has no finite largest logit.
    """
    xp = array_namespace(logits)
    token_ids = xp.argmax(logits, axis=-1)
    is_finite = xp.isfinite(at_indexes(logits, token_ids))
    chosen, finite = xp.stack([token_ids, xp.astype(is_finite, token_ids.dtype)]).tolist()  # one transfer
    if 0 in finite:
        raise no_finite_logits()
    return list(chosen)


def _at(log_weights: Array, rows: Array, token_ids: Array, noise: Array) -> Array:
    """Log weights plus noise at these elements, -inf elsewhere."""
    sums = array_namespace(log_weights).full_like(log_weights, -math.inf)
    sums[rows, token_ids] = log_weights[rows, token_ids] + noise
    return sums


def _vocabulary_noise(log_weights: Array, places: Sequence[Place], stream: Stream) -> Array:
    """Rough noise of all tokens, once for rows of the same place: a tree has several nodes at a position."""
    row_of = {place: row for row, place in enumerate(dict.fromkeys(places))}
    seed, positions = _keys(list(row_of), log_weights)
    noise = rough_gumbel(vocabulary_uniform(seed, positions, log_weights.shape[1], stream))
    return take_rows(noise, [row_of[place] for place in places])


def _keys(places: Sequence[Place], like: Array) -> tuple[Seed, Array]:
    """Seeds and positions, as noise takes them."""
    seeds = [seed for seed, _ in places]
    seed = seeds[0] if len(set(seeds)) == 1 else seeds_like(seeds, like)
    return seed, integers_like([position for _, position in places], like)


def _within_reach(log_weights: Array) -> Array:
    """Tokens that the largest possible noise would lift above the heaviest token with the least. bool as log_weights.

    Its own noise would leave out a few more and costs as much as that of all that are left.
    """
    xp = array_namespace(log_weights)
    return log_weights >= xp.max(log_weights, axis=-1, keepdims=True) + (LEAST_GUMBEL - LARGEST_GUMBEL)
