"""Tokens of a text, where they came from, and how they are chosen.

Positions count generated tokens from 0; a prompt's tokens have no position, because the two sides may have different
prompts.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from skydraft.errors import require

MAX_END_IDS = 64


class Origin(enum.StrEnum):
    """Where a token of the text came from."""

    EDGE = "edge"  # committed on the device, not judged
    ACCEPTED = "accepted"  # drafted on the device and held by the target
    CORRECTED = "corrected"  # the target's choice where the draft failed
    CLOUD = "cloud"  # the target's own: a bonus token, or written on credit


class SamplingParams(msgspec.Struct, frozen=True, array_like=True, kw_only=True, forbid_unknown_fields=True):
    """How a token is chosen from logits, and when a text ends. The order of the fields is that of the wire.

    max_tokens: the text ends after this many tokens.
    end_ids: or at one of these, which belongs to the text.
    seed: of the noise; 0 to 2**64 - 1.
    temperature: 0 is greedy.
    top_p: keep the smallest set of tokens with at least this probability; 1 keeps all.
    top_k: keep the k most probable tokens; 0 keeps all.
    """

    max_tokens: int = 128
    end_ids: Annotated[tuple[int, ...], Meta(max_length=MAX_END_IDS)] = ()  # bounded before it is allocated
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.temperature <= 100, "temperature", self.temperature, "0 to 100")
        require(self.top_k >= 0, "top_k", self.top_k, "0 or more")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        require(0 <= self.seed < 2**64, "seed", self.seed, "0 to 2**64 - 1")
        require(1 <= self.max_tokens <= 2**20, "max_tokens", self.max_tokens, "1 to 2**20")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def up_to(self, max_tokens: int) -> SamplingParams:
        """The same for a text of at most so many tokens."""
        return self if self.max_tokens <= max_tokens else msgspec.structs.replace(self, max_tokens=max_tokens)

    def is_end(self, token_ids: Sequence[int]) -> bool:
        """Whether a text of these tokens is complete."""
        return len(token_ids) >= self.max_tokens or (bool(token_ids) and token_ids[-1] in self.end_ids)


class Token(msgspec.Struct, frozen=True):
    """A token of the text and where it came from."""

    token_id: int
    origin: Origin


class TokenSignals(msgspec.Struct, frozen=True):
    """How sure the draft model was of one token that it drafted.

    entropy_nats: of its distribution (temperature 1, nothing cut).
    log_prob: of the token, natural logarithm.
    margin: probability of its best token less that of its second best.
    """

    entropy_nats: float
    log_prob: float
    margin: float
