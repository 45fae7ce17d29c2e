"""The gate: does a drafted block go to the cloud, or does the device commit it itself?

Source of the entropy gate and its threshold: uncertainty-guided speculative decoding, Xue et al. 2026, arXiv
2603.11397. On captions margin and log-probability find more of the blocks that a cloud changes (AUC 0.72 and 0.70,
entropy 0.62).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeAlias

from skydraft.core import TokenSignals
from skydraft.errors import ConfigError

EMOTION = "emotion-"  # before the name of a signal: of the words that name an emotion


class Gate(Protocol):
    """Decides on one block. `str(gate)` is what `gate_choice.parse_gate` reads."""

    def escalates(self, signals: Sequence[TokenSignals], token_ids: Sequence[int] = ()) -> bool:
        """Whether the block goes to the cloud.

        Args:
            signals: one for each token of the block, in order.
            token_ids: the tokens; only a gate that looks at words needs them.
        Raises:
            ValueError: the block is empty.
        """


@dataclass(frozen=True)
class EntropyGate:
    """Escalates a block in which the largest token entropy is above a threshold in nats."""

    name: ClassVar[str] = "entropy"
    is_unsure_above: ClassVar[bool] = True
    threshold_nats: float = 2.5

    def __post_init__(self) -> None:
        _require(0 <= self.threshold_nats < math.inf, "entropy", self.threshold_nats, "0 nats or more")

    @staticmethod
    def worst(signals: Sequence[TokenSignals]) -> float:
        """The largest of the tokens' entropies; NaN if there is one."""
        return _largest([signal.entropy_nats for signal in signals])

    def escalates(self, signals: Sequence[TokenSignals], token_ids: Sequence[int] = ()) -> bool:
        return not self.worst(signals) <= self.threshold_nats  # in this form, for NaN is escalated too

    def __str__(self) -> str:
        return f"entropy:{self.threshold_nats!r}"


@dataclass(frozen=True)
class MarginGate:
    """Escalates a block in which the best token leads the second best by less than a threshold in probability."""

    name: ClassVar[str] = "margin"
    is_unsure_above: ClassVar[bool] = False
    threshold: float = 0.3

    def __post_init__(self) -> None:
        _require(0 <= self.threshold <= 1, "margin", self.threshold, "0 to 1")

    @staticmethod
    def worst(signals: Sequence[TokenSignals]) -> float:
        """The smallest of the tokens' margins; NaN if there is one."""
        return _smallest([signal.margin for signal in signals])

    def escalates(self, signals: Sequence[TokenSignals], token_ids: Sequence[int] = ()) -> bool:
        return not self.worst(signals) >= self.threshold

    def __str__(self) -> str:
        return f"margin:{self.threshold!r}"


@dataclass(frozen=True)
class LogProbGate:
    """Escalates a block in which a token's log-probability is below a threshold in nats."""

    name: ClassVar[str] = "logprob"
    is_unsure_above: ClassVar[bool] = False
    threshold_nats: float = -2.0

    def __post_init__(self) -> None:
        _require(-math.inf < self.threshold_nats <= 0, "logprob", self.threshold_nats, "0 nats or less")

    @staticmethod
    def worst(signals: Sequence[TokenSignals]) -> float:
        """The smallest of the tokens' log-probabilities; NaN if there is one."""
        return _smallest([signal.log_prob for signal in signals])

    def escalates(self, signals: Sequence[TokenSignals], token_ids: Sequence[int] = ()) -> bool:
        return not self.worst(signals) >= self.threshold_nats

    def __str__(self) -> str:
        return f"logprob:{self.threshold_nats!r}"


# Compare what a signal is at its worst in a block with a threshold, above which it is a doubt, or below.
SignalGate: TypeAlias = EntropyGate | MarginGate | LogProbGate
SIGNAL_GATES: dict[str, type[SignalGate]] = {gate.name: gate for gate in (EntropyGate, MarginGate, LogProbGate)}


@dataclass(frozen=True)
class EmotionGate:
    """Looks at the words that name an emotion alone: the words of a caption on which the large model is better.

    gate: decides on their tokens; a block without one stays on the device.
    emotion_ids: their token ids, of a word of several tokens the first: that is where it is chosen.
    """

    gate: SignalGate
    emotion_ids: Collection[int]

    def escalates(self, signals: Sequence[TokenSignals], token_ids: Sequence[int] = ()) -> bool:
        _require_tokens(signals)
        named = signals_of_words(signals, token_ids, self.emotion_ids)
        return bool(named) and self.gate.escalates(named)

    def __str__(self) -> str:
        return f"{EMOTION}{self.gate}"


@dataclass(frozen=True)
class AlwaysGate:
    """Escalates every block."""

    def escalates(self, signals: Sequence[TokenSignals], token_ids: Sequence[int] = ()) -> bool:
        _require_tokens(signals)
        return True

    def __str__(self) -> str:
        return "always"


@dataclass(frozen=True)
class NeverGate:
    """Escalates no block: the device writes alone."""

    def escalates(self, signals: Sequence[TokenSignals], token_ids: Sequence[int] = ()) -> bool:
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


def signals_of_words(
    signals: Sequence[TokenSignals], token_ids: Sequence[int], word_ids: Collection[int]
) -> list[TokenSignals]:
    """Those of the tokens that are among `word_ids`."""
    return [signal for signal, token_id in zip(signals, token_ids, strict=True) if token_id in word_ids]


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
