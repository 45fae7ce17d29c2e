"""Speculative sampling by rejection: the parts that concern one token.

Source: Leviathan et al. 2023, arXiv 2211.17192.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from array_api_compat import array_namespace

from skydraft.core import Draft, LatticeDistribution, Rejection, SamplingParams
from skydraft.errors import RemoteProtocolError
from skydraft.sampling.arrays import Array, at_indexes, integers_like
from skydraft.sampling.gumbel_max import greedy_choices, gumbel_argmax
from skydraft.sampling.noise import Stream, uniform
from skydraft.sampling.warp import probabilities, warp


def accepts(u: float, target_prob: float, draft_prob: float) -> bool:
    """Whether a token that was drawn with draft_prob, above 0, is accepted; u is uniform between 0 and 1."""
    return u < target_prob / draft_prob


def acceptance_uniforms(seed: int, positions: Sequence[int]) -> list[float]:
    """The u of each position: one token is offered there, so the number belongs to the position (token id 0)."""
    places = np.asarray(positions, dtype=np.int64)
    return list(uniform(seed, places, np.zeros_like(places), Stream.ACCEPT).tolist())


def target_probs(logits: Array, token_ids: Array, params: SamplingParams) -> Array:
    """The probability that the target samples each row's token: float64 [num_rows].

    Args:
        logits: float [num_rows, vocab_size].
        token_ids: int64 [num_rows].
    """
    xp = array_namespace(logits)
    if params.is_greedy:
        return xp.astype(integers_like(greedy_choices(logits), logits) == token_ids, xp.float64)
    return at_indexes(probabilities(warp(logits, params)), token_ids)


def draft_prob(distribution: LatticeDistribution, token_id: int) -> float:
    """The probability that the token was drawn with; 0 where it is not in the support."""
    weights = dict(zip(distribution.token_ids, distribution.weights, strict=True))
    return weights.get(token_id, 0) / sum(distribution.weights)


def residual_choice(logits_row: Array, distribution: LatticeDistribution, params: SamplingParams, position: int) -> int:
    """The token in place of one that failed: a sample of max(target prob - draft prob, 0), normalised.

    Args:
        logits_row: the target's, float [vocab_size].
        distribution: what the token that failed was drawn from.
    Raises:
        EngineError: the row has no finite largest logit.
    """
    if params.is_greedy:  # all of the residual is on it: a token failed, so the draft did not give it all
        return greedy_choices(logits_row[None, :])[0]
    log_weights = log_residual(warp(logits_row, params), distribution)
    return gumbel_argmax(log_weights[None, :], [(params.seed, position)], Stream.RESIDUAL)[0]


def log_residual(warped: Array, distribution: LatticeDistribution) -> Array:
    """Logarithms of max(target prob - draft prob, 0); of the target's own where that is 0 everywhere.

    The two are then equal, and a token fails only by a rounding error: the target's own distribution is the right one.

    Args:
        warped: the target's logits, float64 [vocab_size].
    Returns:
        float64 [vocab_size], not normalised.
    """
    xp = array_namespace(warped)
    residual = probabilities(warped)
    support = integers_like(distribution.token_ids, warped)
    residual[support] -= integers_like(distribution.weights, warped) / sum(distribution.weights)
    is_left = residual > 0
    if not bool(xp.any(is_left)):
        return warped
    return xp.where(is_left, xp.log(xp.where(is_left, residual, 1.0)), -math.inf)


def checked_distributions(draft: Draft, rule: Rejection, vocab_size: int) -> tuple[LatticeDistribution, ...]:
    """The distributions of the draft's tokens that are not forced.

    Raises:
        RemoteProtocolError: the draft is a tree, there is not one distribution for each token, one of them is none,
            or a token has probability 0 in its own.
    """
    distributions = draft.distributions or ()
    if not draft.shape.is_chain:
        raise RemoteProtocolError(f"the rule {rule} judges chains and the draft is a tree; send a chain")
    judged_ids = draft.token_ids[draft.num_forced :]
    if len(distributions) != len(judged_ids):
        raise RemoteProtocolError(
            f"the draft has {len(distributions)} distributions for {len(judged_ids)} tokens; with the rule {rule} it "
            "must have one for each token that is not forced"
        )
    for distribution, token_id in zip(distributions, judged_ids, strict=True):
        _check_distribution(distribution, rule, vocab_size)
        if draft_prob(distribution, token_id) == 0:
            raise RemoteProtocolError(
                f"token {token_id} of the draft has probability 0 in the distribution that it was drawn from"
            )
    return distributions


def _check_distribution(distribution: LatticeDistribution, rule: Rejection, vocab_size: int) -> None:
    token_ids, weights = distribution.token_ids, distribution.weights
    if not len(token_ids) == len(weights) <= rule.top_k:
        raise RemoteProtocolError(
            f"a draft distribution has {len(token_ids)} tokens and {len(weights)} weights; with the rule {rule} it "
            f"must have at most {rule.top_k} of both"
        )
    if min(weights, default=0) < 0 or sum(weights) != rule.lattice:
        raise RemoteProtocolError(
            f"the weights of a draft distribution are {list(weights)} and must be 0 or more and sum to {rule.lattice}"
        )
    if sorted(set(token_ids)) != list(token_ids) or token_ids[0] < 0 or token_ids[-1] >= vocab_size:
        raise RemoteProtocolError(
            f"the tokens of a draft distribution are {list(token_ids)} and must ascend within 0 to {vocab_size - 1}"
        )
