"""The gate: does a drafted block go to the cloud, or does the device commit it itself?

Source of the entropy gate and its threshold: uncertainty-guided speculative decoding, Xue et al. 2026, arXiv
2603.11397. The other signals are there to be compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from skydraft.core import AcceptanceRule, Objective, ShareLevel, TokenSignals, read_float
from skydraft.errors import ConfigError

LOSS_NATS = 4.0  # as of a choice between 55 tokens that are equally probable
GATES = "entropy, entropy:NATS, margin, margin:PROB, logprob, logprob:NATS, always, never"


class Gate(Protocol):
    """Decides on one block. `str(gate)` is what `parse_gate` reads."""

    def escalates(self, signals: Sequence[TokenSignals]) -> bool:
        """Whether the block goes to the cloud.

        Args:
            signals: one for each token of the block, in order.
        Raises:
            ValueError: the block is empty.
        """


@dataclass(frozen=True)
class EntropyGate:
    """Escalates a block in which the largest token entropy is above a threshold in nats."""

    threshold_nats: float = 2.5

    def __post_init__(self) -> None:
        _require(0 <= self.threshold_nats < math.inf, "entropy", self.threshold_nats, "0 nats or more")

    def escalates(self, signals: Sequence[TokenSignals]) -> bool:
        # In this form, for an entropy of NaN is escalated too.
        return not _largest([signal.entropy_nats for signal in signals]) <= self.threshold_nats

    def __str__(self) -> str:
        return f"entropy:{self.threshold_nats!r}"


@dataclass(frozen=True)
class MarginGate:
    """Escalates a block in which the best token leads the second best by less than a threshold in probability."""

    threshold: float = 0.3

    def __post_init__(self) -> None:
        _require(0 <= self.threshold <= 1, "margin", self.threshold, "0 to 1")

    def escalates(self, signals: Sequence[TokenSignals]) -> bool:
        return not _smallest([signal.margin for signal in signals]) >= self.threshold

    def __str__(self) -> str:
        return f"margin:{self.threshold!r}"


@dataclass(frozen=True)
class LogProbGate:
    """Escalates a block in which a token's log-probability is below a threshold in nats."""

    threshold_nats: float = -2.0

    def __post_init__(self) -> None:
        _require(-math.inf < self.threshold_nats <= 0, "logprob", self.threshold_nats, "0 nats or less")

    def escalates(self, signals: Sequence[TokenSignals]) -> bool:
        return not _smallest([signal.log_prob for signal in signals]) >= self.threshold_nats

    def __str__(self) -> str:
        return f"logprob:{self.threshold_nats!r}"


@dataclass(frozen=True)
class AlwaysGate:
    """Escalates every block."""

    def escalates(self, signals: Sequence[TokenSignals]) -> bool:
        _require_tokens(signals)
        return True

    def __str__(self) -> str:
        return "always"


@dataclass(frozen=True)
class NeverGate:
    """Escalates no block: the device writes alone."""

    def escalates(self, signals: Sequence[TokenSignals]) -> bool:
        _require_tokens(signals)
        return False

    def __str__(self) -> str:
        return "never"


@dataclass
class EscalationCap:
    """Lets no more than a share of one text's tokens go to the cloud, whatever the gate would like.

    Raises:
        ConfigError: the share is not 0 to 1.
    """

    max_share: float
    _num_tokens: int = field(default=0, init=False)
    _num_escalated: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 1:
            raise ConfigError(f"the share of tokens that may be escalated is {self.max_share:g} and must be 0 to 1")

    def allows(self, num_tokens: int, is_wanted: bool) -> bool:
        """Whether the next block of so many tokens goes to the cloud; it is counted either way."""
        self._num_tokens += num_tokens
        is_allowed = is_wanted and self._num_escalated + num_tokens <= self.max_share * self._num_tokens
        self._num_escalated += num_tokens * is_allowed
        return is_allowed


def parse_gate(text: str) -> Gate:
    """Read `entropy`, `entropy:2.5`, `margin:0.3`, `logprob:-2`, `always` or `never`.

    Raises:
        ConfigError: the gate is unknown, or its threshold is out of range.
    """
    name, colon, argument = text.partition(":")
    try:
        match name, colon:
            case "entropy", _:
                return EntropyGate(read_float(argument)) if colon else EntropyGate()
            case "margin", _:
                return MarginGate(read_float(argument)) if colon else MarginGate()
            case "logprob", _:
                return LogProbGate(read_float(argument)) if colon else LogProbGate()
            case "always", "":
                return AlwaysGate()
            case "never", "":
                return NeverGate()
    except ValueError:
        pass
    raise ConfigError(f"unknown gate {text!r}; expected one of {GATES}")


def choose_gate(
    text: str | None, share: ShareLevel, rule: AcceptanceRule, objective: Objective = Objective.LATENCY
) -> Gate:
    """The gate that was asked for, or the default one.

    Args:
        text: as `parse_gate` reads it; None: nothing was asked for.
    Raises:
        ConfigError: it is no gate, or would commit tokens unjudged under a rule that promises the cloud's text.
    """
    if text is None:
        return default_gate(share, rule, objective)
    gate = parse_gate(text)
    if rule.promises_cloud_text and not isinstance(gate, AlwaysGate):
        raise ConfigError(
            f"gate {gate} commits tokens that the cloud did not judge, and under the rule {rule} the text is the "
            "cloud's: use gate always, or the rule rank:R or prob:X"
        )
    return gate


def default_gate(share: ShareLevel, rule: AcceptanceRule, objective: Objective = Objective.LATENCY) -> Gate:
    """Choose the gate that fits a share level, an acceptance rule and an objective.

    `exact` and `rejection` promise a text that is the cloud's own, in words or in law: the device may commit nothing
    unjudged. Under `rank` and `prob` the device's evidence is better than the cloud's for as long as the cloud has
    not got it, and the cloud is asked where the device is unsure; under the objective privacy where it is at a loss.
    """
    if share is ShareLevel.NONE:
        return NeverGate()
    if objective is Objective.PRIVACY and not rule.promises_cloud_text:
        return EntropyGate(LOSS_NATS)
    if share is ShareLevel.TOKENS and not rule.promises_cloud_text:
        return EntropyGate()
    return AlwaysGate()


def _largest(values: Sequence[float]) -> float:
    """The largest; NaN if there is one, for Python's max would take it or leave it by its place."""
    _require_tokens(values)
    return next((value for value in values if math.isnan(value)), max(values))


def _smallest(values: Sequence[float]) -> float:
    return -_largest([-value for value in values])


def _require_tokens(of_each: Sequence[object]) -> None:
    if not of_each:
        raise ValueError("a gate decides on blocks of at least one token, and this one has none")


def _require(condition: bool, name: str, value: float, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"the threshold of gate {name!r} is {value:g} and must be {allowed}")
