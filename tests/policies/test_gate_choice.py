from __future__ import annotations

import pytest

from skydraft.core import AcceptanceRule, Calibration, Evidence, Exact, MinProb, Objective, Rank, Rejection
from skydraft.errors import ConfigError
from skydraft.policies.gate import AlwaysGate, EmotionGate, EntropyGate, Gate, LogProbGate, MarginGate, NeverGate
from skydraft.policies.gate_choice import (
    UNSURE_RATE,
    UNSURE_RATE_OF_PRIVACY,
    DraftFacts,
    GateSetting,
    SignalSetting,
    choose_gate,
    default_gate,
    parse_gate,
    require_gate_fits,
)

QUANTILES = (0.0, 0.5, 1.0)
CALIBRATION = Calibration(
    "made up",
    100,
    "abc",
    {
        "entropy": (1.0, 2.0, 5.0),
        "margin": QUANTILES,
        "logprob": (-4.0, -1.0, 0.0),
        "emotion-margin": (0.2, 0.6, 1.0),
    },
)
FACTS = DraftFacts(CALIBRATION, frozenset({7}))
PROMISES: list[AcceptanceRule] = [Exact(), Rejection()]
LENIENT: list[AcceptanceRule] = [Rank(20), MinProb(0.1)]


def chosen(text: str, facts: DraftFacts = FACTS) -> Gate:
    return choose_gate(text, Rank(20), Evidence.NEVER, Objective.LATENCY, facts)


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
        ("margin@20%", MarginGate(0.2)),
        ("margin@75%", MarginGate(0.75)),
        ("margin@0%", MarginGate(0)),
        ("entropy@0%", EntropyGate(5)),
        ("entropy@25%", EntropyGate(3.5)),
        ("entropy@100%", EntropyGate(1)),
        ("logprob@50%", LogProbGate(-1)),
        ("emotion-margin:0.4", EmotionGate(MarginGate(0.4), frozenset({7}))),
        ("emotion-margin@50%", EmotionGate(MarginGate(0.6), frozenset({7}))),
        ("emotion-entropy", EmotionGate(EntropyGate(2.5), frozenset({7}))),
    ],
)
def test_gates_are_read(text: str, gate: Gate) -> None:
    assert chosen(text) == gate


@pytest.mark.parametrize(
    "text", ["entropy", "margin:0.3", "logprob:-2.0", "margin@20%", "emotion-logprob@12.5%", "always", "never"]
)
def test_a_setting_reads_back_from_its_text(text: str) -> None:
    assert str(parse_gate(text)) == text


@pytest.mark.parametrize("gate", [EntropyGate(1 / 3), MarginGate(2 / 3), LogProbGate(-1 / 3), AlwaysGate()], ids=str)
def test_a_gate_reads_back_from_its_text(gate: Gate) -> None:
    assert chosen(str(gate)) == gate


@pytest.mark.parametrize(
    "text",
    [
        *("", "entropy:", "entropy:high", "always:1", "never:", "Entropy", "rank:20", "margin:1:2"),
        *("entropy: 5", "entropy:1_0", "entropy:\u0661", "margin:nan", "entropy:inf", "logprob:-inf", "logprob:+0"),
        *("margin@", "margin@20", "margin@%", "margin@x%", "margin:0.3@20%", "margin@20%@3%", "emotion-always"),
        *("emotion-", "emotion-emotion-margin", "always@20%"),
    ],
)
def test_what_is_no_gate_is_refused_with_the_list(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_gate(text)
    assert str(caught.value) == (
        f"unknown gate {text!r}; expected one of always, never, or entropy, margin or logprob, each also with "
        ":THRESHOLD or @PERCENT% behind it, and with emotion- before it"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("margin:1.5", "the threshold of gate 'margin' is 1.5 and must be 0 to 1"),
        ("emotion-margin@120%", "the rate of gate 'emotion-margin' is 120% and must be 0% to 100%"),
        ("margin@-1%", "the rate of gate 'margin' is -1% and must be 0% to 100%"),
    ],
)
def test_what_is_out_of_range_is_refused_before_the_draft_is_known(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_gate(text)
    assert str(caught.value) == sentence


def test_a_rate_needs_a_calibration() -> None:
    with pytest.raises(ConfigError, match=r"margin@20% needs a calibration .* give a threshold, as in margin:0.3"):
        chosen("margin@20%", DraftFacts())
    with pytest.raises(ConfigError, match="emotion-entropy is not calibrated; known are entropy, margin"):
        chosen("emotion-entropy@20%")


def test_only_a_caption_has_the_word_of_an_emotion() -> None:
    with pytest.raises(ConfigError, match=r"emotion-margin:0.2 looks at .* only a caption has one: use margin:0.2"):
        chosen("emotion-margin:0.2", DraftFacts(CALIBRATION))


@pytest.mark.parametrize("rule", LENIENT, ids=str)
def test_a_lenient_rule_without_the_evidence_is_gated_by_entropy(rule: AcceptanceRule) -> None:
    assert default_gate(rule, Evidence.NEVER) == EntropyGate(2.5)


@pytest.mark.parametrize("rule", PROMISES, ids=str)
@pytest.mark.parametrize("evidence", [Evidence.NEVER, Evidence.ALWAYS])
def test_a_rule_that_promises_the_clouds_text_is_never_passed_by(evidence: Evidence, rule: AcceptanceRule) -> None:
    assert default_gate(rule, evidence) == AlwaysGate()


@pytest.mark.parametrize("rule", LENIENT, ids=str)
def test_a_cloud_that_has_the_evidence_judges_every_block(rule: AcceptanceRule) -> None:
    assert default_gate(rule, Evidence.ALWAYS) == AlwaysGate()


@pytest.mark.parametrize("rule", PROMISES + LENIENT, ids=str)
def test_evidence_leaves_for_the_captions_whose_emotion_is_the_least_sure(rule: AcceptanceRule) -> None:
    gate = default_gate(rule, Evidence.UNSURE, facts=FACTS)
    assert gate == EmotionGate(MarginGate(CALIBRATION.quantile("emotion-margin", UNSURE_RATE)), FACTS.emotion_ids)
    private = default_gate(rule, Evidence.UNSURE, Objective.PRIVACY, FACTS)
    rate = UNSURE_RATE_OF_PRIVACY
    assert private == EmotionGate(MarginGate(CALIBRATION.quantile("emotion-margin", rate)), FACTS.emotion_ids)


@pytest.mark.parametrize("facts", [DraftFacts(), DraftFacts(CALIBRATION), DraftFacts(None, frozenset({7}))])
def test_evidence_leaves_by_margin_where_less_is_known(facts: DraftFacts) -> None:
    assert default_gate(Exact(), Evidence.UNSURE, facts=facts) == MarginGate()


@pytest.mark.parametrize("rule", PROMISES, ids=str)
@pytest.mark.parametrize("text", ["entropy", "margin:0.1", "margin@5%", "never"])
def test_a_rule_that_promises_the_clouds_text_takes_no_gate_that_lets_tokens_pass(
    rule: AcceptanceRule, text: str
) -> None:
    setting: GateSetting = parse_gate(text)
    with pytest.raises(ConfigError, match=f"gate {text} commits tokens that the cloud did not judge"):
        require_gate_fits(setting, rule, Evidence.ALWAYS)
    require_gate_fits(setting, rule, Evidence.UNSURE)
    require_gate_fits(AlwaysGate(), rule, Evidence.ALWAYS)


def test_a_lenient_rule_takes_every_gate() -> None:
    for setting in (SignalSetting("margin"), NeverGate(), AlwaysGate()):
        require_gate_fits(setting, Rank(20), Evidence.NEVER)


def test_no_gate_asked_for_is_the_default_one() -> None:
    assert choose_gate(None, Rank(), Evidence.NEVER, Objective.LATENCY) == default_gate(Rank(), Evidence.NEVER)
    assert choose_gate("never", Rank(), Evidence.NEVER, Objective.LATENCY) == NeverGate()


@pytest.mark.parametrize("evidence", [Evidence.NEVER, Evidence.ALWAYS])
def test_under_privacy_only_blocks_that_the_device_is_at_a_loss_with_are_sent(evidence: Evidence) -> None:
    assert choose_gate(None, Rank(), evidence, Objective.PRIVACY) == EntropyGate(4.0)
    assert choose_gate("entropy:1", Rank(), evidence, Objective.PRIVACY) == EntropyGate(1.0)
    assert choose_gate(None, Exact(), evidence, Objective.PRIVACY) == AlwaysGate()
