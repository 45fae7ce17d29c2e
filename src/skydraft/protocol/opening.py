"""`Open` as it travels: sampling as an array and the acceptance rule as its text, so that both stay small."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from msgspec.structs import asdict

from skydraft.core import SamplingParams, parse_rule
from skydraft.protocol.limits import MAX_END_IDS, MAX_RULE_CHARS, MAX_VOCABULARY
from skydraft.protocol.messages import (
    Open,
    Resume,
    SessionNumber,
    TokenId,
    Version,
    VocabularyMark,
    WireMessage,
    WirePart,
    WireSegments,
)


class WireSampling(WirePart, frozen=True):
    """core.SamplingParams, what is seldom set last."""

    max_tokens: int = 128
    end_ids: Annotated[tuple[TokenId, ...], Meta(max_length=MAX_END_IDS)] = ()
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: Annotated[int, Meta(ge=0, le=MAX_VOCABULARY)] = 0


class WireOpen(WireMessage, frozen=True, tag=1):
    """messages.Open, field by field."""

    version: Version
    session: SessionNumber
    vocabulary: VocabularyMark
    sampling: WireSampling
    rule: Annotated[str, Meta(max_length=MAX_RULE_CHARS)]
    segments: WireSegments = ()
    resume: Resume | None = None


def to_wire(message: Open) -> WireOpen:
    """Put an `Open` into the form in which it travels."""
    sampling = WireSampling(**asdict(message.sampling))
    return WireOpen(**{**asdict(message), "sampling": sampling, "rule": str(message.rule)})


def from_wire(wire: WireOpen) -> Open:
    """The inverse of `to_wire`.

    Raises:
        ConfigError: sampling parameters or rule are none.
    """
    sampling = SamplingParams(**asdict(wire.sampling))
    return Open(**{**asdict(wire), "sampling": sampling, "rule": parse_rule(wire.rule)})
