"""Temperature, min-p, top-k and top-p: logits in, logits with -inf where a token is cut out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

from skydraft.core import SamplingParams
from skydraft.errors import EngineError
from skydraft.sampling.arrays import Array, largest_values, to_float64

COLDEST = 1e-30  # lower temperatures count as this one, which is greedy already; logits over them would overflow


def warp(logits: Array, params: SamplingParams) -> Array:
    """Temperature, then min-p, then top-k, then top-p.

    Args:
        logits: float of any width [..., vocab_size].
        params: of a temperature above 0.
    Returns:
        float64 [..., vocab_size]: (logits - largest) / temperature, so that the largest is 0; -inf where cut. A row
        whose largest logit is not finite has nothing finite.
    Raises:
        ValueError: the temperature is 0; greedy choices need no warping.
    Source: transformers' TemperatureLogitsWarper, MinPLogitsWarper, TopKLogitsWarper and TopPLogitsWarper in the order
        of vLLM. All tokens that tie with the k-th stay. Of tokens that tie at the edge of top_p as many stay as there;
        which, it leaves to an unstable sort; here the lowest ids, as a greedy choice takes.
    """
    if params.is_greedy:
        raise ValueError("logits cannot be warped to temperature 0: use greedy_choices")
    logits = without_improbable(logits, params)
    scaled = _scale(logits, params.temperature)
    if 0 < params.top_k < logits.shape[-1]:
        is_cut = logits < largest_values(logits, params.top_k)[..., -1:]
        if params.top_p < 1:
            is_cut = is_cut | _outside_nucleus(scaled, _leaders_after_top_k(scaled, is_cut), params.top_p)
    elif params.top_p < 1:
        is_cut = _outside_nucleus(scaled, _possible_leaders(scaled, params.top_p), params.top_p)
    else:
        return scaled
    return array_namespace(logits).where(is_cut, -math.inf, scaled)


def without_improbable(logits: Array, params: SamplingParams) -> Array:
    """The logits that min_p keeps, -inf in place of the others: [..., vocab_size], of the same type.

    Whoever warps in another way than `warp` does this first.
    """
    if params.is_greedy or not params.min_p:
        return logits
    xp = array_namespace(logits)
    least = to_float64(xp.max(logits, axis=-1, keepdims=True)) + params.temperature * math.log(params.min_p)
    if logits.dtype == np.float32:  # a third of the time, and the same: those below it are those below the next float32
        narrow = least.astype(np.float32)
        narrow = np.where(narrow < least, np.nextafter(narrow, np.float32(np.inf)), narrow)
        return np.where(logits < narrow, np.float32(-np.inf), logits)
    return xp.where(to_float64(logits) < least, -math.inf, logits)


def probabilities(logits: Array) -> Array:
    """Softmax over the last axis in float64; for warped logits, the probabilities that tokens are sampled with."""
    xp = array_namespace(logits)
    weights = xp.exp(_scale(logits, 1.0))
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def log_probabilities(logits: Array) -> Array:
    """Logarithms of `probabilities`."""
    xp = array_namespace(logits)
    scaled = _scale(logits, 1.0)
    return scaled - xp.log(xp.sum(xp.exp(scaled), axis=-1, keepdims=True))


def require_finite(logits: Array) -> Array:
    """The largest logit of each row [..., vocab_size]: [..., 1]. Raises EngineError where one is not finite."""
    xp = array_namespace(logits)
    top = xp.max(logits, axis=-1, keepdims=True)
    if not bool(xp.all(xp.isfinite(top))):
        raise no_finite_logits()
    return top


def check_positions(logits: Array, positions: Sequence[int]) -> None:
    """Raise ValueError where there is not one position for each row [num_rows, vocab_size], or one is negative."""
    if len(positions) != logits.shape[0]:
        raise ValueError(
            f"{len(positions)} positions were given for {logits.shape[0]} rows of logits; give one for each"
        )
    if min(positions, default=0) < 0:
        raise ValueError(f"the position {min(positions)} is negative; positions count generated tokens from 0")


def no_finite_logits() -> EngineError:
    """The error for a row of logits that nothing can be chosen from."""
    return EngineError(
        "the largest of a row of logits is not a finite number, so no token can be chosen: the model overflowed or its "
        "weights are broken; load it in float32 or bfloat16"
    )


def _scale(logits: Array, temperature: float) -> Array:
    xp = array_namespace(logits)
    wide = to_float64(logits)
    largest = xp.max(wide, axis=-1, keepdims=True)
    scaled = wide - xp.where(xp.isfinite(largest), largest, math.nan)
    if temperature != 1:
        # An array on the device: by a number of the host torch on CUDA would divide through its reciprocal.
        scaled /= xp.full((), max(temperature, COLDEST), dtype=xp.float64, device=device(logits))
    return scaled


class _Leaders(NamedTuple):
    """The tokens of each row that top-p may keep, most probable first.

    logits, weights: float64 [..., num_leaders], the weights exp(logits), or 0 where a row has fewer leaders.
    total: the weight of all tokens [..., 1].
    """

    logits: Array
    weights: Array
    total: Array


def _leaders_after_top_k(scaled: Array, is_cut: Array) -> _Leaders:
    """All that top-k left, of which there may be more than k."""
    xp = array_namespace(scaled)
    num_left = xp.count_nonzero(~is_cut, axis=-1)[..., None]
    logits = largest_values(scaled, int(xp.max(num_left)))
    places = xp.arange(logits.shape[-1], device=device(logits))
    weights = xp.where(places < num_left, xp.exp(logits), 0.0)
    return _Leaders(logits, weights, xp.sum(weights, axis=-1, keepdims=True))


def _possible_leaders(scaled: Array, top_p: float) -> _Leaders:
    """Tokens with more than (1 - top_p) / vocab_size: all others together have no more than 1 - top_p."""
    xp = array_namespace(scaled)
    weights = xp.exp(scaled)
    total = xp.sum(weights, axis=-1, keepdims=True)
    num_possible = xp.count_nonzero(weights > (1 - top_p) / scaled.shape[-1] * total, axis=-1)
    logits = largest_values(scaled, max(1, int(xp.max(num_possible))))
    return _Leaders(logits, xp.exp(logits), total)


def _outside_nucleus(scaled: Array, leaders: _Leaders, top_p: float) -> Array:
    """Which tokens are not in the smallest set with at least top_p of the probability: bool [..., vocab_size]."""
    xp = array_namespace(scaled)
    weight_before = xp.cumulative_sum(leaders.weights, axis=-1) - leaders.weights
    num_kept = xp.count_nonzero((weight_before < top_p * leaders.total) & (leaders.weights > 0), axis=-1)[..., None]
    edge = xp.take_along_axis(leaders.logits, xp.clip(num_kept - 1, min=0), axis=-1)
    is_inside = scaled >= edge
    if bool(xp.any(xp.count_nonzero(is_inside, axis=-1)[..., None] > num_kept)):
        is_above = scaled > edge
        num_tied_kept = num_kept - xp.count_nonzero(is_above, axis=-1)[..., None]
        place_among_tied = xp.cumulative_sum(xp.astype(is_inside & ~is_above, xp.int64), axis=-1)  # from 1
        is_inside = is_above | (is_inside & (place_among_tied <= num_tied_kept))
    return ~is_inside
