from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from skydraft.core import TokenSignals
from skydraft.errors import ConfigError
from skydraft.policies.gate import AlwaysGate, EmotionGate, EntropyGate, Gate, LogProbGate, MarginGate, NeverGate

SURE = TokenSignals(entropy_nats=0.1, log_prob=-0.02, margin=0.97)
UNSURE = TokenSignals(entropy_nats=3.2, log_prob=-2.6, margin=0.05)
LEAST = math.ulp(1.0)
ALL_GATES = (EntropyGate(), MarginGate(), LogProbGate(), AlwaysGate(), NeverGate(), EmotionGate(MarginGate(), {7}))


def signals(**changed: float) -> TokenSignals:
    return TokenSignals(**({"entropy_nats": 0.1, "log_prob": -0.02, "margin": 0.97} | changed))


def test_entropy_escalates_above_its_threshold_and_not_at_it() -> None:
    assert not EntropyGate(1.0).escalates([signals(entropy_nats=1.0)])
    assert EntropyGate(1.0).escalates([signals(entropy_nats=1.0 + LEAST)])


def test_margin_escalates_below_its_threshold_and_not_at_it() -> None:
    assert not MarginGate(0.5).escalates([signals(margin=0.5)])
    assert MarginGate(0.5).escalates([signals(margin=0.5 - LEAST)])


def test_log_prob_escalates_below_its_threshold_and_not_at_it() -> None:
    assert not LogProbGate(-1.0).escalates([signals(log_prob=-1.0)])
    assert LogProbGate(-1.0).escalates([signals(log_prob=-1.0 - LEAST)])


@pytest.mark.parametrize("gate", [EntropyGate(), MarginGate(), LogProbGate()])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_one_unsure_token_anywhere_escalates_the_block(gate: Gate, place: int) -> None:
    block = [SURE] * 5
    assert not gate.escalates(block)
    block[place] = UNSURE
    assert gate.escalates(block)


@pytest.mark.parametrize("gate", [EntropyGate(), MarginGate(), LogProbGate()])
@pytest.mark.parametrize("place", [0, 1])
def test_a_signal_that_is_not_a_number_escalates(gate: Gate, place: int) -> None:
    block = [SURE, SURE]
    block[place] = TokenSignals(math.nan, math.nan, math.nan)
    assert gate.escalates(block)


def test_always_and_never_look_at_nothing() -> None:
    assert AlwaysGate().escalates([SURE])
    assert not NeverGate().escalates([UNSURE])


@pytest.mark.parametrize("gate", ALL_GATES, ids=str)
def test_an_empty_block_is_the_callers_mistake(gate: Gate) -> None:
    with pytest.raises(ValueError, match="blocks of at least one token"):
        gate.escalates([])


def test_an_emotion_gate_looks_at_the_words_of_emotions_alone() -> None:
    gate = EmotionGate(MarginGate(0.3), {7, 8})
    assert not gate.escalates([UNSURE, UNSURE], [1, 2])
    assert not gate.escalates([UNSURE, SURE], [1, 7])
    assert gate.escalates([SURE, UNSURE], [1, 8])


def test_an_emotion_gate_wants_a_token_for_each_signal() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        EmotionGate(MarginGate(), {7}).escalates([SURE])


@pytest.mark.parametrize(
    ("gate", "sentence"),
    [
        (lambda: EntropyGate(-1), "the threshold of gate 'entropy' is -1 and must be 0 nats or more"),
        (lambda: MarginGate(1.5), "the threshold of gate 'margin' is 1.5 and must be 0 to 1"),
        (lambda: MarginGate(-0.1), "the threshold of gate 'margin' is -0.1 and must be 0 to 1"),
        (lambda: LogProbGate(0.5), "the threshold of gate 'logprob' is 0.5 and must be 0 nats or less"),
    ],
)
def test_thresholds_out_of_range_are_refused_with_both_values(gate: Callable[[], Gate], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gate()
    assert str(caught.value) == sentence
