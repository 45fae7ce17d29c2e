"""What the text so far makes of the logits behind it, before they are warped: bias, penalties, a grammar's mask.

The target's choices and the device's guesses of them are made from shaped logits alike, so that they agree as often as
without. Logits that are not shaped are returned as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

from skydraft.core import SamplingParams
from skydraft.errors import EngineError
from skydraft.sampling.arrays import Array, integers_like, on_host, to_float64
from skydraft.text.grammar_matcher import Mask


class History(NamedTuple):
    """What stands before each row of logits.

    text_ids: the text so far, before all rows.
    paths: of each row, the tokens between the text and the row: those of a node of a tree and of its ancestors.
    """

    text_ids: Sequence[int]
    paths: Sequence[Sequence[int]]


def shape_logits(
    logits: Array, params: SamplingParams, history: History, masks: Sequence[Mask | None] | None = None
) -> Array:
    """Add the bias, take off the penalties, leave out what is masked: a function of the row's own history alone.

    Args:
        logits: float [num_rows, vocab_size], of the model. Ids that it has not are not shaped.
        history: of as many rows.
        masks: the tokens that may follow each row (`text/grammar_matcher`); None: all may.
    Returns:
        float32 [num_rows, vocab_size], or float64 where the logits are; the same in numpy and torch, to the bit.
    Raises:
        EngineError: no token may follow a row.
    Source: the order, and presence and frequency, are vLLM's and OpenAI's; repetition: Keskar et al. 2019,
        arXiv 1909.05858.
    """
    if not params.shapes_logits or not history.paths:
        return logits
    xp = array_namespace(logits)
    shaped = xp.astype(logits, xp.float64 if logits.dtype == xp.float64 else xp.float32, copy=True)
    if params.logit_bias:
        _add_bias(shaped, params)
    if params.has_penalties:
        _penalise(shaped, params, history)
    return shaped if masks is None else _masked(shaped, masks)


def _add_bias(shaped: Array, params: SamplingParams) -> None:
    vocab_size = shaped.shape[1]
    known = [(token_id, bias) for token_id, bias in params.logit_bias if token_id < vocab_size]
    token_ids = integers_like([token_id for token_id, _ in known], shaped)
    biased = on_host(to_float64(shaped[:, token_ids])) + np.array([bias for _, bias in known])
    shaped[:, token_ids] = _like(biased, shaped)


def _penalise(shaped: Array, params: SamplingParams, history: History) -> None:
    known_ids, counts = _counted(history, shaped.shape[1])
    rows, columns = np.nonzero(counts)
    at = integers_like(rows.tolist(), shaped), integers_like(known_ids[columns].tolist(), shaped)
    logits = on_host(to_float64(shaped[at]))
    penalty = params.repetition_penalty
    logits = np.where(logits > 0, logits / penalty, logits * penalty)
    logits -= params.frequency_penalty * counts[rows, columns] + params.presence_penalty
    shaped[at] = _like(logits, shaped)


def _counted(history: History, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that stand before any row: int64 [num_ids]. How often each stands before each: [num_rows, num_ids]."""
    in_text = Counter(history.text_ids)
    column_of = {token_id: column for column, token_id in enumerate(in_text)}
    for path in history.paths:
        for token_id in path:
            column_of.setdefault(token_id, len(column_of))
    counts = np.zeros((len(history.paths), len(column_of)))
    counts[:, : len(in_text)] = list(in_text.values())
    for row, path in enumerate(history.paths):
        for token_id in path:
            counts[row, column_of[token_id]] += 1
    token_ids = np.array(list(column_of), dtype=np.int64)
    counts[:, token_ids >= vocab_size] = 0
    return token_ids, counts


def _masked(shaped: Array, masks: Sequence[Mask | None]) -> Array:
    vocab_size = shaped.shape[1]
    is_allowed = np.zeros(shaped.shape, dtype=np.bool_)
    for row, mask in zip(is_allowed, masks, strict=True):
        if mask is None:
            row[:] = True
        else:
            row[: len(mask)] = mask[:vocab_size]
            if not row.any():
                raise EngineError("the model has no token for what the grammar asks for here: use another grammar")
    ceilings = is_allowed.astype(np.float32)  # inf or -inf by arithmetic: a tenth of the time of a choice between two
    ceilings -= np.float32(0.5)
    ceilings *= np.float32(np.inf)
    return array_namespace(shaped).minimum(shaped, _like(ceilings, shaped))


def _like(values: np.ndarray, like: Array) -> Array:
    """Of the type and on the device of `like`."""
    return array_namespace(like).asarray(values.astype(_NARROW[like.dtype.itemsize], copy=False), device=device(like))


_NARROW = {4: np.float32, 8: np.float64}
