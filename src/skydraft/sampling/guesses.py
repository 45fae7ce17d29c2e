"""The device's guesses of the target's choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

from skydraft.core import SamplingParams
from skydraft.sampling.arrays import Array, integers_like, largest, on_host, some_largest
from skydraft.sampling.noise import Stream, rough_gumbel, uniform, vocabulary_uniform
from skydraft.sampling.warp import COLDEST, check_positions, require_finite, warp

# Of a vocabulary of so many tokens or fewer all are considered. Their noise is made for a block of positions at a time,
# for it takes little longer than that of one, and kept: the next steps have nodes there too.
SMALL_VOCABULARY = 2**12
BLOCK = 8
NUM_KEPT_BLOCKS = 16


class Guesses(NamedTuple):
    """What a model would choose at one position, and what it would choose in place of that.

    token_ids: different ones, the best first.
    scores: of each: its log-probability, plus its noise where it is sampled. Natural logarithms.
    """

    token_ids: tuple[int, ...]
    scores: tuple[float, ...]


def best_guesses(
    logits: Array, params: SamplingParams, positions: Sequence[int], count: int, max_candidates: int = 256
) -> list[Guesses]:
    """This model's best guesses of another's choices, position by position.

    Of a large vocabulary only the max_candidates most probable tokens are considered. A target's choice that is none of
    them cannot be guessed, so agreement falls by at most the probability of the others; the text does not change.

    Args:
        logits: float [num_rows, vocab_size].
        positions: of each row.
        count: how many guesses, 1 or more; there are fewer where fewer survive the warping.
    Raises:
        ValueError: count or max_candidates is below 1, there is not one position for each row, or one is negative.
        EngineError: a row has no finite largest logit.
    Source: Daliri et al. 2024, arXiv 2408.07978: shared noise agrees with probability at least (1 - TV) / (1 + TV).
    """
    if min(count, max_candidates) < 1:
        raise ValueError(f"count is {count} and max_candidates {max_candidates}; both must be 1 or more")
    check_positions(logits, positions)
    weights = _log_weights(logits, params)
    xp = array_namespace(weights)
    totals = on_host(xp.sum(xp.exp(weights), axis=-1, keepdims=True))
    if params.is_greedy:
        scores, ids = map(on_host, largest(weights, count))
    elif weights.shape[1] <= SMALL_VOCABULARY:
        noise = xp.asarray(_noise_at(params.seed, positions, weights.shape[1]), device=device(weights))
        scores, ids = map(on_host, some_largest(weights + noise, count))
    else:
        scores, ids = map(on_host, some_largest(weights, max_candidates))
        u = uniform(params.seed, integers_like(positions, ids)[:, None], ids, Stream.TARGET)
        scores, order = some_largest(scores + rough_gumbel(u), count)
        ids = np.take_along_axis(ids, order, axis=-1)
    return [_guesses(*row) for row in zip(ids.tolist(), (scores - np.log(totals)).tolist(), strict=True)]


def _log_weights(logits: Array, params: SamplingParams) -> Array:
    """As `warp`, but narrower where nothing is cut: a guess that a rounding error changes is a guess all the same."""
    xp, top = array_namespace(logits), require_finite(logits)
    if not params.is_greedy and (0 < params.top_k < logits.shape[-1] or params.top_p < 1):
        return warp(logits, params)
    wide = logits if logits.dtype == xp.float64 else xp.astype(logits, xp.float32, copy=False)
    return (wide - top) / (1.0 if params.is_greedy else max(params.temperature, COLDEST))


def _noise_at(seed: int, positions: Sequence[int], vocab_size: int) -> Array:
    """Of all tokens at each position: float64 [num_positions, vocab_size]."""
    blocks = {number: _noise_block(seed, number, vocab_size) for number in {at // BLOCK for at in positions}}
    return np.stack([blocks[position // BLOCK][position % BLOCK] for position in positions])


@lru_cache(maxsize=NUM_KEPT_BLOCKS)
def _noise_block(seed: int, number: int, vocab_size: int) -> Array:
    positions = np.arange(number * BLOCK, (number + 1) * BLOCK)
    return rough_gumbel(vocabulary_uniform(seed, positions, vocab_size, Stream.TARGET))


def _guesses(token_ids: list[int], scores: list[float]) -> Guesses:
    num_finite = sum(score > -math.inf for score in scores)
    return Guesses(tuple(token_ids[:num_finite]), tuple(scores[:num_finite]))
