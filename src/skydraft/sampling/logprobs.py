"""What the target model itself says of the tokens of a text: before bias, penalties, temperature and cuts."""

from __future__ import annotations

from collections.abc import Sequence

from array_api_compat import array_namespace

from skydraft.core import TokenLogprobs
from skydraft.sampling.arrays import Array, at_indexes, integers_like, largest, row_blocks, to_float64


def token_logprobs(logits: Array, token_ids: Sequence[int], num_top: int) -> list[TokenLogprobs]:
    """The log-probability of a token of each row, and of the most probable ones there.

    Args:
        logits: float [num_rows, vocab_size], the model's own.
        token_ids: of each row.
        num_top: how many of the most probable tokens are told; all where the vocabulary has fewer.
    """
    xp = array_namespace(logits)
    told: list[TokenLogprobs] = []
    for rows in row_blocks(logits):
        block, ids = logits[rows], integers_like(token_ids[rows], logits)
        values, tops = largest(block, max(1, num_top))
        wide = to_float64(block) - to_float64(values[:, :1])
        log_total = xp.log(xp.sum(xp.exp(wide), axis=-1))[:, None]  # of the row, when its largest logit is 0
        own = at_indexes(wide, ids)[:, None] - log_total
        others = to_float64(values) - to_float64(values[:, :1]) - log_total
        for (logprob,), top_ids, top_logprobs in zip(own.tolist(), tops.tolist(), others.tolist(), strict=True):
            told.append(TokenLogprobs(logprob, tuple(zip(top_ids, top_logprobs, strict=True))[:num_top]))
    return told
