from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from msgspec.structs import astuple

from skydraft.core import TokenSignals
from skydraft.errors import EngineError
from skydraft.sampling.signals import relative_probabilities, token_signals
from tests.sampling.helpers import ToArray, softmax

ROW = np.random.default_rng(6).standard_normal(200) * 3


def test_signals_are_those_of_the_plain_softmax(to_array: ToArray) -> None:
    probs = softmax(ROW)
    best, second = np.sort(probs)[::-1][:2]
    signals = token_signals(to_array(ROW), 17)
    assert signals.entropy_nats == pytest.approx(-(probs * np.log(probs)).sum(), rel=1e-12)
    assert signals.log_prob == pytest.approx(np.log(probs[17]), rel=1e-12)
    assert signals.margin == pytest.approx(best - second, rel=1e-12)


def test_an_even_distribution_has_the_largest_entropy_and_no_margin() -> None:
    signals = token_signals(np.full(16, 3.0), 0)
    assert astuple(signals) == (pytest.approx(math.log(16)), pytest.approx(-math.log(16)), 0.0)


def test_masked_tokens_count_for_nothing(to_array: ToArray) -> None:
    signals = token_signals(to_array(np.array([0.0, -np.inf, 0.0, -np.inf])), 1)
    assert astuple(signals) == (pytest.approx(math.log(2)), -math.inf, 0.0)


def test_a_vocabulary_of_one_is_certain() -> None:
    assert token_signals(np.array([5.0]), 0) == TokenSignals(0.0, 0.0, 1.0)


def test_narrow_logits_are_measured_in_float64() -> None:
    row = torch.from_numpy(ROW).to(torch.bfloat16)
    assert token_signals(row, 3) == token_signals(row.double(), 3)


@pytest.mark.parametrize("token_id", [-1, 200])
def test_a_token_outside_the_vocabulary_is_an_error(token_id: int) -> None:
    with pytest.raises(ValueError, match="0 to 199"):
        token_signals(ROW, token_id)


def test_logits_of_nan_are_an_error() -> None:
    with pytest.raises(EngineError, match="not a finite number"):
        token_signals(np.array([0.0, np.nan]), 0)


def test_relative_probabilities_are_those_of_the_tokens_among_themselves(to_array: ToArray) -> None:
    probs = softmax(ROW)[[17, 3, 150]]
    assert relative_probabilities(to_array(ROW), [17, 3, 150]) == pytest.approx((probs / probs.sum()).tolist())


def test_relative_probabilities_need_a_finite_logit() -> None:
    with pytest.raises(EngineError, match="not a finite number"):
        relative_probabilities(np.array([0.0, -np.inf, -np.inf]), [1, 2])
