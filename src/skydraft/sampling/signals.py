"""How sure a model is of a token that it drafted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from array_api_compat import array_namespace

from skydraft.core import TokenSignals
from skydraft.sampling.arrays import Array, integers_like, largest_values
from skydraft.sampling.warp import log_probabilities, no_finite_logits


def token_signals(logits_row: Array, token_id: int) -> TokenSignals:
    """Entropy, log probability and margin, at temperature 1 with nothing cut.

    Args:
        logits_row: float [vocab_size].
        token_id: the token that was drafted.
    Raises:
        ValueError: the token is not in the vocabulary.
        EngineError: the row has no finite largest logit.
    """
    xp = array_namespace(logits_row)
    vocab_size = logits_row.shape[0]
    if not 0 <= token_id < vocab_size:
        raise ValueError(f"token {token_id} is not in the vocabulary, 0 to {vocab_size - 1}")
    log_probs = log_probabilities(logits_row)
    probs = xp.exp(log_probs)
    entropy = -xp.sum(probs * xp.where(probs > 0, log_probs, 0.0))
    best = largest_values(probs, min(2, vocab_size))
    margin = best[0] - best[1] if vocab_size > 1 else best[0]
    entropy_nats, log_prob, difference = xp.stack([entropy, log_probs[token_id], margin]).tolist()
    if math.isnan(entropy_nats):
        raise no_finite_logits()
    return TokenSignals(entropy_nats, log_prob, difference)


def relative_probabilities(logits_row: Array, token_ids: Sequence[int]) -> list[float]:
    """The probabilities of some tokens beside each other, as if there were no others.

    Args:
        logits_row: float [vocab_size].
        token_ids: at least one, in the vocabulary.
    Raises:
        EngineError: none of them has a finite logit.
    """
    xp = array_namespace(logits_row)
    chosen = xp.take(logits_row, integers_like(token_ids, logits_row))
    probabilities: list[float] = xp.exp(log_probabilities(chosen)).tolist()
    if any(map(math.isnan, probabilities)):
        raise no_finite_logits()
    return probabilities
