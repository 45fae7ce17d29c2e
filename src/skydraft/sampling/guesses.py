"""The device's guesses of the target's choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array

from skydraft.core import SamplingParams
from skydraft.sampling.arrays import Array, integers_like, largest, on_host, some_largest, to_float64
from skydraft.sampling.kernel import MOST_WANTED, kernel_for
from skydraft.sampling.noise import Stream, rough_gumbel, uniform, vocabulary_uniform
from skydraft.sampling.warp import COLDEST, check_positions, require_finite, warp, without_improbable

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
    logits = without_improbable(logits, params)
    guesses = _by_kernel(logits, params, positions, count, max_candidates)
    return guesses or _by_arrays(logits, params, positions, count, max_candidates)


def _by_kernel(
    logits: Array, params: SamplingParams, positions: Sequence[int], count: int, max_candidates: int
) -> list[Guesses] | None:
    """None where there is no kernel for them."""
    if count > MOST_WANTED or (compiled := kernel_for(logits)) is None:
        return None
    (kernel, rows), vocab_size = compiled, logits.shape[1]
    num_candidates = vocab_size if vocab_size <= SMALL_VOCABULARY else max_candidates
    found = kernel.guess(rows, params, positions, count, num_candidates)
    return None if found is None else [Guesses(*each) for each in found]


def _by_arrays(
    logits: Array, params: SamplingParams, positions: Sequence[int], count: int, max_candidates: int
) -> list[Guesses]:
    top = require_finite(logits)
    if params.is_greedy:
        scores, ids, total = _most_probable(logits, top, params, count)
    elif logits.shape[1] <= SMALL_VOCABULARY:
        scores, ids, total = _best_of_all(logits, top, params, positions, count)
    else:
        log_weights, ids, total = _most_probable(logits, top, params, max_candidates)
        u = uniform(params.seed, integers_like(positions, ids)[:, None], ids, Stream.TARGET)
        scores, order = some_largest(log_weights + rough_gumbel(u), min(count, ids.shape[1]))
        ids = np.take_along_axis(ids, order, axis=-1)
    return [_guesses(*row) for row in zip(ids.tolist(), (scores - np.log(total)).tolist(), strict=True)]


class _Candidates(NamedTuple):
    """Tokens of each row, in numpy.

    log_weights: float64 [num_rows, num_candidates], of any scale, perhaps with noise; -inf where cut.
    token_ids: int64 [num_rows, num_candidates].
    total: the weight of all tokens of the row that are not cut, on the scale without noise: [num_rows, 1].
    """

    log_weights: Array
    token_ids: Array
    total: Array


def _best_of_all(
    logits: Array, top: Array, params: SamplingParams, positions: Sequence[int], count: int
) -> _Candidates:
    """The tokens whose log weight plus noise is largest, of the whole vocabulary."""
    weights = warp(logits, params) if _is_cut(logits, params) else _log_weights(logits, top, params)
    xp = array_namespace(weights)
    noise = xp.asarray(_noise_at(params.seed, positions, logits.shape[1]), device=device(weights))
    sums, ids = some_largest(weights + noise, min(count, logits.shape[1]))
    return _Candidates(on_host(sums), on_host(ids), on_host(xp.sum(xp.exp(weights), axis=-1, keepdims=True)))


def _most_probable(logits: Array, top: Array, params: SamplingParams, count: int) -> _Candidates:
    """The most probable tokens, most probable first. Cutting looks at no others, so that rows need not be warped."""
    vocab_size = logits.shape[1]
    top_k = params.top_k if _is_cut(logits, params) and 0 < params.top_k < vocab_size else 0
    values, ids = largest(logits, min(max(count, top_k), vocab_size))
    values, ids = on_host(to_float64(values)), on_host(ids)
    log_weights = _log_weights(values, values[:, :1], params)
    weights = np.exp(log_weights)
    if top_k:
        is_cut = values < values[:, top_k - 1 : top_k]
        weights[is_cut] = 0.0
        total = weights.sum(axis=-1, keepdims=True)
    else:
        is_cut = np.zeros(values.shape, dtype=bool)
        total = _total_weight(logits, top, params)
    if not params.is_greedy and params.top_p < 1:
        is_cut |= weights.cumsum(axis=-1) - weights >= params.top_p * total
        weights[is_cut] = 0.0
        # Where none is cut, tokens that are no candidates may belong to those that have top_p of the weight.
        total = np.where(is_cut.any(axis=-1, keepdims=True), 0.0, params.top_p * total)
        total = np.maximum(total, weights.sum(axis=-1, keepdims=True))
    log_weights[is_cut] = -math.inf
    return _Candidates(log_weights[:, :count], ids[:, :count], total)


def _is_cut(logits: Array, params: SamplingParams) -> bool:
    """Whether top_k or top_p leave tokens out."""
    return not params.is_greedy and (0 < params.top_k < logits.shape[-1] or params.top_p < 1)


def _log_weights(logits: Array, top: Array, params: SamplingParams) -> Array:
    """As `warp`, but narrower and nothing cut: a guess that a rounding error changes is a guess all the same."""
    xp = array_namespace(logits)
    wide = logits if logits.dtype == xp.float64 else xp.astype(logits, xp.float32, copy=False)
    return (wide - top) / (1.0 if params.is_greedy else max(params.temperature, COLDEST))


def _total_weight(logits: Array, top: Array, params: SamplingParams) -> Array:
    """Of each row, in numpy: [num_rows, 1]."""
    if not is_torch_array(logits):  # row by row: a core's cache holds one
        totals = [np.exp(_log_weights(*pair, params)).sum() for pair in zip(logits, top, strict=True)]
        return np.array(totals, dtype=np.float64)[:, None]
    xp = array_namespace(logits)
    return on_host(to_float64(xp.sum(xp.exp(_log_weights(logits, top, params)), axis=-1, keepdims=True)))


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
