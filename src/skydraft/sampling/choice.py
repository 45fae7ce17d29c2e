"""The target's choice, and the device's guesses of it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from array_api_compat import array_namespace

from skydraft.core import SamplingParams
from skydraft.sampling.arrays import Array, integers_like, largest, on_host, packed, row_blocks, to_float64
from skydraft.sampling.noise import Seed, Stream, gumbel, seed_of_rows, seeds_like
from skydraft.sampling.race import gumbel_argmax, winners
from skydraft.sampling.warp import require_finite, warp


class Wanted(NamedTuple):
    """Choices that are wanted for one text: the arguments of `target_choices`."""

    logits: Array  # float [num_rows, vocab_size]
    params: SamplingParams
    positions: Sequence[int]


def choices_together(wanted: Sequence[Wanted]) -> list[list[int]]:
    """The target's choices for many texts: what `target_choices` gives for each, in a few steps for all.

    Texts with the same vocabulary size, temperature, top_k and top_p are chosen for together, whatever their seeds:
    small arrays cost what their number costs and not what their size costs (2 cores, 64 rows of 2048 tokens: 153 ms
    one by one, 23 ms at once).

    Raises:
        ValueError: as `target_choices`.
        EngineError: a row of one of them has no finite largest logit; which, `target_choices` tells.
    """
    if len(wanted) == 1:
        return [target_choices(*wanted[0])]
    choices: list[list[int]] = [[] for _ in wanted]
    for places in _alike(wanted):
        token_ids = iter(_choose_alike([wanted[place] for place in places]))
        for place in places:
            choices[place] = list(islice(token_ids, len(wanted[place].positions)))
    return choices


def target_choices(logits: Array, params: SamplingParams, positions: Sequence[int]) -> list[int]:
    """The target's choice at each position: a function of the logits, the seed and the position alone.

    Args:
        logits: float [num_rows, vocab_size].
        positions: of each row.
    Returns:
        A token id for each row.
    Raises:
        ValueError: there is not one position for each row, or one is negative.
        EngineError: a row has no finite largest logit.
    """
    _check_positions(logits, positions)
    if params.is_greedy:
        return greedy_choices(logits)
    return sampled_choices(logits, params, positions)


def greedy_choices(logits: Array) -> list[int]:
    """The most probable token of each row [num_rows, vocab_size]; of equal ones the lowest id.

    Raises:
        EngineError: a row has no finite largest logit.
    """
    return winners(logits)


def sampled_choices(logits: Array, params: SamplingParams, positions: Sequence[int]) -> list[int]:
    """A token of each row, sampled by Gumbel-max over the warped logits; arguments as `target_choices`.

    The same in numpy and torch, unless top_p ends within a rounding error (1e-15) of a token's edge.
    """
    return _sampled(logits, params, positions, params.seed)


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

    Only the max_candidates most probable tokens are considered. A target's choice that is none of them cannot be
    guessed, so agreement falls by at most the probability of the others; the text does not change.

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
    _check_positions(logits, positions)
    require_finite(logits)
    scores, ids = map(on_host, _candidates(logits, params, count if params.is_greedy else max_candidates))
    if not params.is_greedy:
        places = integers_like(positions, ids)[:, None]
        scores, order = largest(scores + gumbel(params.seed, places, ids, Stream.TARGET), count)
        ids = array_namespace(ids).take_along_axis(ids, order, axis=-1)
    return [_guesses(*row) for row in zip(ids.tolist(), scores.tolist(), strict=True)]


def _alike(wanted: Sequence[Wanted]) -> Iterator[list[int]]:
    """Places of those that differ in nothing but seeds and positions, in blocks that bound what is copied at a time."""
    groups: dict[Hashable, list[int]] = {}
    for place, (logits, params, _) in enumerate(wanted):
        cut = None if params.is_greedy else (params.temperature, params.top_k, params.top_p)
        groups.setdefault((logits.shape[-1], cut), []).append(place)
    for places in groups.values():
        yield from packed(places, [wanted[place].logits for place in places])


def _choose_alike(wanted: Sequence[Wanted]) -> list[int]:
    first = wanted[0]
    if len(wanted) == 1:
        return target_choices(*first)
    for logits, _, positions in wanted:
        _check_positions(logits, positions)
    joined = array_namespace(first.logits).concat([each.logits for each in wanted])
    if first.params.is_greedy:
        return greedy_choices(joined)
    seeds = [each.params.seed for each in wanted for _ in each.positions]
    return _sampled(joined, first.params, [p for each in wanted for p in each.positions], seeds_like(seeds, joined))


def _sampled(logits: Array, params: SamplingParams, positions: Sequence[int], seed: Seed) -> list[int]:
    """`sampled_choices` with this seed, or these of the rows, in place of that of the parameters."""
    token_ids: list[int] = []
    places = integers_like(positions, logits)
    for rows in row_blocks(logits):
        warped = warp(logits[rows], params)
        token_ids += gumbel_argmax(warped, seed_of_rows(seed, rows), places[rows], Stream.TARGET)
    return token_ids


def _candidates(logits: Array, params: SamplingParams, count: int) -> tuple[Array, Array]:
    """Log-probabilities of the most probable tokens and their ids [num_rows, count]; of equal ones the lowest ids."""
    weights = to_float64(logits) if params.is_greedy else warp(logits, params)
    xp = array_namespace(weights)
    scores, ids = largest(weights, count)
    top = scores[:, :1]
    return scores - top - xp.log(xp.sum(xp.exp(weights - top), axis=-1, keepdims=True)), ids


def _guesses(token_ids: list[int], scores: list[float]) -> Guesses:
    num_finite = sum(score > -math.inf for score in scores)
    return Guesses(tuple(token_ids[:num_finite]), tuple(scores[:num_finite]))


def _check_positions(logits: Array, positions: Sequence[int]) -> None:
    if len(positions) != logits.shape[0]:
        raise ValueError(
            f"{len(positions)} positions were given for {logits.shape[0]} rows of logits; give one for each"
        )
    if min(positions, default=0) < 0:
        raise ValueError(f"the position {min(positions)} is negative; positions count generated tokens from 0")
