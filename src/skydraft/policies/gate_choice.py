"""From what a user says of the gate to the gate of one text."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from skydraft.core import AcceptanceRule, Calibration, Evidence, Objective, read_float
from skydraft.errors import ConfigError
from skydraft.policies.gate import (
    EMOTION,
    SIGNAL_GATES,
    AlwaysGate,
    EmotionGate,
    EntropyGate,
    Gate,
    MarginGate,
    NeverGate,
    SignalGate,
)

GATES = (
    "always, never, or entropy, margin or logprob, each also with :THRESHOLD or @PERCENT% behind it, and with "
    "emotion- before it"
)
LOSS_NATS = 4.0  # as of a choice between 55 tokens that are equally probable
# Of the texts whose evidence leaves, where nothing else is said: chosen on speakers 17 and 18 (docs/results.md).
UNSURE_RATE, UNSURE_RATE_OF_PRIVACY = 0.35, 0.1


@dataclass(frozen=True)
class DraftFacts:
    """What the device knows about its draft model and the task.

    calibration: None: none comes with the model.
    emotion_ids: as `EmotionGate` wants them; empty: the text is no caption.
    """

    calibration: Calibration | None = None
    emotion_ids: Collection[int] = ()


NO_FACTS = DraftFacts()


@dataclass(frozen=True)
class SignalSetting:
    """A gate on a signal, as a user names it.

    signal: a key of SIGNAL_GATES.
    threshold: None: the gate's own, unless there is a rate.
    rate: the share of the texts of which something is to be escalated, 0 to 1.
    is_of_emotion: only the words that name an emotion are looked at.
    """

    signal: str
    threshold: float | None = None
    rate: float | None = None
    is_of_emotion: bool = False

    @property
    def name(self) -> str:
        """Of what is compared, as calibrations have it."""
        return f"{EMOTION}{self.signal}" if self.is_of_emotion else self.signal

    def __str__(self) -> str:
        if self.rate is not None:
            return f"{self.name}@{100 * self.rate:g}%"
        return self.name if self.threshold is None else f"{self.name}:{self.threshold!r}"

    def gate(self, facts: DraftFacts = NO_FACTS) -> Gate:
        """Make the gate for a draft model and a task.

        Raises:
            ConfigError: it needs a calibration or the words of emotions, and there are none.
        """
        gate = self._signal_gate(facts.calibration)
        if not self.is_of_emotion:
            return gate
        if not facts.emotion_ids:
            raise ConfigError(f"gate {self} looks at the word of an emotion, and only a caption has one: use {gate}")
        return EmotionGate(gate, facts.emotion_ids)

    def _signal_gate(self, calibration: Calibration | None) -> SignalGate:
        kind = SIGNAL_GATES[self.signal]
        if self.rate is None:
            return kind() if self.threshold is None else kind(self.threshold)
        if calibration is None:
            raise ConfigError(
                f"gate {self} needs a calibration and none comes with the draft model: give a threshold, as in {kind()}"
            )
        return kind(calibration.quantile(self.name, 1 - self.rate if kind.is_unsure_above else self.rate))


GateSetting = SignalSetting | AlwaysGate | NeverGate
UNSURE_CAPTIONS = SignalSetting("margin", rate=UNSURE_RATE, is_of_emotion=True)


def parse_gate(text: str) -> GateSetting:
    """Read `entropy`, `entropy:2.5`, `logprob:-2`, `margin@20%`, `emotion-margin@20%`, `always` or `never`.

    Raises:
        ConfigError: the gate is unknown, or its threshold or rate is out of range.
    """
    if text in ("always", "never"):
        return AlwaysGate() if text == "always" else NeverGate()
    head, at, percent = text.partition("@")
    name, colon, threshold = head.partition(":")
    signal = name.removeprefix(EMOTION)
    is_rate = bool(at) and percent.endswith("%")
    if signal in SIGNAL_GATES and bool(at) == is_rate and not (at and colon):
        try:
            setting = SignalSetting(
                signal,
                threshold=read_float(threshold) if colon else None,
                rate=read_float(percent.removesuffix("%")) / 100 if is_rate else None,
                is_of_emotion=signal != name,
            )
        except ValueError:
            pass
        else:
            return _checked(setting)
    raise ConfigError(f"unknown gate {text!r}; expected one of {GATES}")


def require_gate_fits(setting: GateSetting, rule: AcceptanceRule, evidence: Evidence) -> None:
    """Refuse a gate that would commit tokens unjudged under a rule that promises the cloud's text.

    Raises:
        ConfigError: naming both.
    """
    is_for_opening = evidence is Evidence.UNSURE  # the gate says when the cloud's text begins, and not what is of it
    if rule.promises_cloud_text and not isinstance(setting, AlwaysGate) and not is_for_opening:
        raise ConfigError(
            f"gate {setting} commits tokens that the cloud did not judge, and under the rule {rule} the text is the "
            "cloud's: use gate always, the rule rank:R or prob:X, or evidence unsure"
        )


def choose_gate(
    text: str | None, rule: AcceptanceRule, evidence: Evidence, objective: Objective, facts: DraftFacts = NO_FACTS
) -> Gate:
    """The gate that was asked for, or the default one.

    Args:
        text: as `parse_gate` reads it; None: nothing was asked for.
        evidence: when it leaves the device.
    Raises:
        ConfigError: it is no gate, or cannot be had with this draft model.
    """
    if text is None:
        return default_gate(rule, evidence, objective, facts)
    setting = parse_gate(text)
    return setting.gate(facts) if isinstance(setting, SignalSetting) else setting


def default_gate(
    rule: AcceptanceRule, evidence: Evidence, objective: Objective = Objective.LATENCY, facts: DraftFacts = NO_FACTS
) -> Gate:
    """Choose the gate that fits an acceptance rule, what happens to the evidence, and an objective.

    `exact` and `rejection` promise a text that is the cloud's own, in words or in law, from where the cloud is asked:
    the device commits nothing unjudged there. Under `rank` and `prob` the device's evidence is better than the cloud's
    for as long as the cloud has not got it, and the cloud is asked where the device is unsure; under the objective
    privacy where it is at a loss.
    """
    if evidence is Evidence.UNSURE:
        if facts.calibration is None or not facts.emotion_ids:
            return MarginGate()
        rate = UNSURE_RATE_OF_PRIVACY if objective is Objective.PRIVACY else UNSURE_RATE
        return replace(UNSURE_CAPTIONS, rate=rate).gate(facts)
    if rule.promises_cloud_text:
        return AlwaysGate()
    if objective is Objective.PRIVACY:
        return EntropyGate(LOSS_NATS)
    return EntropyGate() if evidence is Evidence.NEVER else AlwaysGate()


def _checked(setting: SignalSetting) -> SignalSetting:
    """Raises: ConfigError: the threshold or the rate is out of range."""
    if setting.rate is not None and not 0 <= setting.rate <= 1:
        raise ConfigError(f"the rate of gate {setting.name!r} is {100 * setting.rate:g}% and must be 0% to 100%")
    if setting.threshold is not None:
        SIGNAL_GATES[setting.signal](setting.threshold)
    return setting
