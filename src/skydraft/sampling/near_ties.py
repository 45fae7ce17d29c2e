"""Choices that were decided by less than logits are known to: an engine that rounds might have made another there."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from array_api_compat import array_namespace, device
from msgspec.structs import replace

from skydraft.core import SamplingParams
from skydraft.sampling.arrays import Array, at_indexes, integers_like
from skydraft.sampling.noise import LARGEST_GUMBEL, Stream, rough_gumbel, uniform
from skydraft.sampling.warp import COLDEST, warp, without_improbable

MAX_SHIFT = 700.0  # exp of more is no float


def near_ties(
    logits: Array, params: SamplingParams, positions: Sequence[int], choices: Sequence[int], gap_change: float
) -> list[int]:
    """The rows in which another token might have been chosen, had logits been a little different.

    That is so where the score of another token, its logit and what the temperature makes of its noise, is at most
    gap_change below that of the choice. The edge of min_p, top_k and top_p moves too: it may let another token in,
    or leave the choice out.

    Args:
        logits: float [num_rows, vocab_size], those that choices were made from (`shaping`).
        positions, choices: of each row; choices as `target_choices` gives them.
        gap_change: by how much the difference of two of the model's logits of a row may be another one, 0 or more; a
            repetition penalty stretches it.
    """
    if not choices:
        return []
    gap_change *= max(params.repetition_penalty, 1 / params.repetition_penalty)
    if params.is_greedy:
        return _near_greedy(logits, choices, gap_change)
    margin = gap_change / max(params.temperature, COLDEST)
    xp, chosen = array_namespace(logits), integers_like(choices, logits)
    scaled, places = warp(logits, replace(params, top_k=0, top_p=1.0, min_p=0.0)), integers_like(positions, logits)
    weight = at_indexes(scaled, chosen)
    score = weight + rough_gumbel(uniform(params.seed, places, chosen, Stream.TARGET))
    # Tokens that the edge may let in and that come near the choice with the largest noise.
    floor = xp.maximum(_edge(logits, scaled, params, margin) - margin, score - margin - LARGEST_GUMBEL)
    if params.min_p:
        floor = xp.clip(floor, min=math.log(params.min_p) - margin)
    rows, token_ids = xp.nonzero((scaled >= floor[:, None]) & (scaled > -math.inf))
    noise = rough_gumbel(uniform(params.seed, places[rows], token_ids, Stream.TARGET))
    is_near = (scaled[rows, token_ids] + noise >= (score - margin)[rows]) & (token_ids != chosen[rows])
    is_other = xp.arange(scaled.shape[1], device=device(scaled)) != chosen[:, None]
    lead = weight - xp.max(xp.where(is_other, scaled, -math.inf), axis=-1)
    # What stays the most probable is never left out.
    is_left_out = (weight < _edge(logits, scaled, params, -margin) + margin) & (lead <= margin)
    if params.min_p:  # by another token that is so much more probable
        is_left_out = is_left_out | (lead < math.log(params.min_p) + margin)
    (left_out,) = xp.nonzero(is_left_out)
    return sorted({*rows[is_near].tolist(), *left_out.tolist()})


def _edge(logits: Array, scaled: Array, params: SamplingParams, shift: float) -> Array:
    """The least weight of each row that top_k and top_p keep, [num_rows]; -inf where they cut nothing.

    Args:
        scaled: the logits warped by the temperature alone.
        shift: of the logarithm of top_p's odds: where weights change by a factor, so do the odds of their sum. And of
            what min_p leaves to top_k and top_p.
    """
    xp = array_namespace(scaled)
    odds = math.inf if params.top_p == 1 else params.top_p / (1 - params.top_p) * math.exp(min(shift, MAX_SHIFT))
    top_p = 1.0 if math.isinf(odds) else max(odds / (1 + odds), sys.float_info.min)
    min_p = min(1.0, params.min_p * math.exp(min(-shift, MAX_SHIFT)))
    left = without_improbable(logits, replace(params, min_p=min_p))
    kept = warp(left, replace(params, top_p=top_p, min_p=0.0))
    is_cut = (kept == -math.inf) & (left > -math.inf)
    edge = xp.min(xp.where(kept > -math.inf, scaled, math.inf), axis=-1)
    return xp.where(xp.any(is_cut, axis=-1), edge, -math.inf)


def _near_greedy(logits: Array, choices: Sequence[int], gap_change: float) -> list[int]:
    near = []
    xp = array_namespace(logits)
    for index, choice in enumerate(choices):
        row = logits[index]
        rival = max(float(xp.max(part)) for part in (row[:choice], row[choice + 1 :]) if part.shape[0])
        if float(row[choice]) - rival <= gap_change:
            near.append(index)
    return near
