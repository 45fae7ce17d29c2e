from __future__ import annotations

import math

import pytest

from skydraft.core import Exact, MinProb, Objective, Rank, Rejection, ShareLevel, TokenSignals
from skydraft.errors import ConfigError
from skydraft.policies.gate import (
    AlwaysGate,
    EntropyGate,
    Gate,
    LogProbGate,
    MarginGate,
    NeverGate,
    choose_gate,
    default_gate,
    parse_gate,
)

SURE = TokenSignals(entropy_nats=0.1, log_prob=-0.02, margin=0.97)
UNSURE = TokenSignals(entropy_nats=3.2, log_prob=-2.6, margin=0.05)
LEAST = math.ulp(1.0)
ALL_GATES = (EntropyGate(), MarginGate(), LogProbGate(), AlwaysGate(), NeverGate())


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


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("entropy", EntropyGate(2.5)),
        ("entropy:2.5", EntropyGate(2.5)),
        ("entropy:0", EntropyGate(0)),
        ("margin", MarginGate(0.3)),
        ("margin:0.25", MarginGate(0.25)),
        ("margin:0", MarginGate(0)),
        ("margin:1", MarginGate(1)),
        ("logprob", LogProbGate(-2)),
        ("logprob:-0.5", LogProbGate(-0.5)),
        ("logprob:0", LogProbGate(0)),
        ("always", AlwaysGate()),
        ("never", NeverGate()),
    ],
)
def test_gates_are_read(text: str, gate: Gate) -> None:
    assert parse_gate(text) == gate


@pytest.mark.parametrize("gate", [*ALL_GATES, EntropyGate(1 / 3), MarginGate(2 / 3), LogProbGate(-1 / 3)], ids=str)
def test_a_gate_reads_back_from_its_text(gate: Gate) -> None:
    assert parse_gate(str(gate)) == gate


@pytest.mark.parametrize(
    "text",
    [
        *("", "entropy:", "entropy:high", "always:1", "never:", "Entropy", "rank:20", "margin:1:2"),
        *("entropy: 5", "entropy:1_0", "entropy:\u0661", "margin:nan", "entropy:inf", "logprob:-inf", "logprob:+0"),
    ],
)
def test_what_is_no_gate_is_refused_with_the_list(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_gate(text)
    assert str(caught.value) == (
        f"unknown gate {text!r}; expected one of entropy, entropy:NATS, margin, margin:PROB, logprob, logprob:NATS, "
        "always, never"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("entropy:-1", "the threshold of gate 'entropy' is -1 and must be 0 nats or more"),
        ("margin:1.5", "the threshold of gate 'margin' is 1.5 and must be 0 to 1"),
        ("margin:-0.1", "the threshold of gate 'margin' is -0.1 and must be 0 to 1"),
        ("logprob:0.5", "the threshold of gate 'logprob' is 0.5 and must be 0 nats or less"),
    ],
)
def test_thresholds_out_of_range_are_refused_with_both_values(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_gate(text)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("rule", [Rank(20), MinProb(0.1)], ids=str)
def test_a_lenient_rule_without_the_evidence_is_gated_by_entropy(rule: Rank | MinProb) -> None:
    assert default_gate(ShareLevel.TOKENS, rule) == EntropyGate(2.5)


@pytest.mark.parametrize("rule", [Exact(), Rejection()], ids=str)
@pytest.mark.parametrize("share", [ShareLevel.TOKENS, ShareLevel.FEATURES])
def test_a_rule_that_promises_the_clouds_text_is_never_passed_by(share: ShareLevel, rule: Exact | Rejection) -> None:
    assert default_gate(share, rule) == AlwaysGate()


@pytest.mark.parametrize("rule", [Rank(20), MinProb(0.1)], ids=str)
def test_a_cloud_that_has_the_evidence_judges_every_block(rule: Rank | MinProb) -> None:
    assert default_gate(ShareLevel.FEATURES, rule) == AlwaysGate()


@pytest.mark.parametrize("rule", [Exact(), Rejection(), Rank(20), MinProb(0.1)], ids=str)
def test_nothing_goes_to_the_cloud_under_share_none(rule: Exact | Rejection | Rank | MinProb) -> None:
    assert default_gate(ShareLevel.NONE, rule) == NeverGate()


@pytest.mark.parametrize("rule", [Exact(), Rejection()])
@pytest.mark.parametrize("gate", ["entropy", "margin:0.1", "never"])
def test_a_rule_that_promises_the_clouds_text_takes_no_gate_that_lets_tokens_pass(
    rule: Exact | Rejection, gate: str
) -> None:
    with pytest.raises(ConfigError, match="that the cloud did not judge"):
        choose_gate(gate, ShareLevel.FEATURES, rule)
    assert choose_gate("always", ShareLevel.FEATURES, rule) == AlwaysGate()


def test_no_gate_asked_for_is_the_default_one() -> None:
    assert choose_gate(None, ShareLevel.TOKENS, Rank()) == default_gate(ShareLevel.TOKENS, Rank())
    assert choose_gate("never", ShareLevel.TOKENS, Rank()) == NeverGate()


@pytest.mark.parametrize("share", [ShareLevel.TOKENS, ShareLevel.FEATURES])
def test_under_privacy_only_blocks_that_the_device_is_at_a_loss_with_are_sent(share: ShareLevel) -> None:
    assert choose_gate(None, share, Rank(), Objective.PRIVACY) == EntropyGate(4.0)
    assert choose_gate("entropy:1", share, Rank(), Objective.PRIVACY) == EntropyGate(1.0)
    assert choose_gate(None, share, Exact(), Objective.PRIVACY) == AlwaysGate()
    assert choose_gate(None, ShareLevel.NONE, Rank(), Objective.PRIVACY) == NeverGate()
