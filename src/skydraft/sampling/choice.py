"""The target's choice, and the device's guesses of it."""

from __future__ import annotations

from collections.abc import Sequence

from array_api_compat import array_namespace

from skydraft.core import SamplingParams
from skydraft.sampling.arrays import Array, integers_like, largest_indexes, row_blocks
from skydraft.sampling.noise import Stream, gumbel
from skydraft.sampling.race import gumbel_argmax, winners
from skydraft.sampling.warp import require_finite, warp


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
    token_ids: list[int] = []
    places = integers_like(positions, logits)
    for rows in row_blocks(logits):
        token_ids += gumbel_argmax(warp(logits[rows], params), params.seed, places[rows], Stream.TARGET)
    return token_ids


def best_guesses(
    logits_row: Array, params: SamplingParams, position: int, count: int, max_candidates: int = 1024
) -> list[int]:
    """What this model would choose, and what it would choose in place of that: the best guesses of another's choice.

    Only the max_candidates most probable tokens are considered. A target's choice that is none of them cannot be
    guessed, so agreement falls by at most the probability of the others; the text does not change.

    Args:
        logits_row: float [vocab_size].
        count: how many guesses, 1 or more.
    Returns:
        Different token ids, the best first; fewer than count where fewer survive the warping.
    Raises:
        ValueError: count or max_candidates is below 1, or the position negative.
        EngineError: the row has no finite largest logit.
    Source: Daliri et al. 2024, arXiv 2408.07978: shared noise agrees with probability at least (1 - TV) / (1 + TV).
    """
    if min(count, max_candidates) < 1:
        raise ValueError(f"count is {count} and max_candidates {max_candidates}; both must be 1 or more")
    _check_positions(logits_row[None, :], [position])
    require_finite(logits_row)
    if params.is_greedy:
        return list(largest_indexes(logits_row, count).tolist())
    warped = warp(logits_row, params)
    candidate_ids = array_namespace(warped).sort(largest_indexes(warped, max_candidates))
    sums = warped[candidate_ids] + gumbel(params.seed, position, candidate_ids, Stream.TARGET)
    return list(candidate_ids[largest_indexes(sums, count)].tolist())


def _check_positions(logits: Array, positions: Sequence[int]) -> None:
    if len(positions) != logits.shape[0]:
        raise ValueError(
            f"{len(positions)} positions were given for {logits.shape[0]} rows of logits; give one for each"
        )
    if min(positions, default=0) < 0:
        raise ValueError(f"the position {min(positions)} is negative; positions count generated tokens from 0")
