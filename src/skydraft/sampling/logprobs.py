"""What the target model itself says of the tokens of a text: before bias, penalties, temperature and cuts."""

from __future__ import annotations

from collections.abc import Sequence

from skydraft.core import TokenLogprobs
from skydraft.sampling.arrays import Array, at_indexes, integers_like, largest, row_blocks
from skydraft.sampling.warp import log_probabilities


def token_logprobs(logits: Array, token_ids: Sequence[int], num_top: int) -> list[TokenLogprobs]:
    """The log-probability of a token of each row, and of the most probable ones there.

    Args:
        logits: float [num_rows, vocab_size], the model's own.
        token_ids: of each row.
        num_top: how many of the most probable tokens are told; all where the vocabulary has fewer.
    """
    told: list[TokenLogprobs] = []
    for block in row_blocks(logits):
        log_probs = log_probabilities(logits[block])
        own = at_indexes(log_probs, integers_like(token_ids[block], logits)).tolist()
        tops = _tops(log_probs, num_top) if num_top else [()] * len(own)
        told += map(TokenLogprobs, own, tops)
    return told


def _tops(log_probs: Array, count: int) -> list[tuple[tuple[int, float], ...]]:
    values, indexes = largest(log_probs, count)
    return [tuple(zip(*row, strict=True)) for row in zip(indexes.tolist(), values.tolist(), strict=True)]
