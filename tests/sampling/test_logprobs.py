from __future__ import annotations

import numpy as np
import pytest

from skydraft.sampling import arrays
from skydraft.sampling.logprobs import token_logprobs
from tests.sampling.helpers import FLAT, ToArray, softmax


def test_log_probabilities_are_those_of_the_softmax(to_array: ToArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_BLOCK_ELEMENTS", 7000)  # the rows are read in blocks
    told = token_logprobs(to_array(FLAT), [5, 6, 7, 8, 9], 2)
    for row, token_id, each in zip(FLAT, [5, 6, 7, 8, 9], told, strict=True):
        log_probs = np.log(softmax(row))
        best = np.argsort(-row)[:2].tolist()
        assert each.logprob == pytest.approx(log_probs[token_id])
        assert [place for place, _ in each.top] == best
        assert [value for _, value in each.top] == pytest.approx(log_probs[best].tolist())


def test_as_many_are_told_as_are_asked_for_and_there_are() -> None:
    row = np.array([[0.0, np.log(3.0)]])
    (told,) = token_logprobs(row, [0], 0)
    assert told.logprob == pytest.approx(np.log(0.25))
    assert told.top == ()
    assert [token_id for token_id, _ in token_logprobs(row, [0], 5)[0].top] == [1, 0]
    assert token_logprobs(row[:0], [], 5) == []
