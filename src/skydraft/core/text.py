"""Tokens of a text, where they came from, and how they are chosen.

Positions count generated tokens from 0; a prompt's tokens have no position, because the two sides may have different
prompts.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from skydraft.core.grammar import Grammar
from skydraft.errors import require

MAX_END_IDS = 64
MAX_VOCABULARY = 2**24  # tokens: an id takes at most 24 bits
MAX_BIASED_IDS = 1024
MAX_TOP_LOGPROBS = 20
MAX_STOPS = 4
MAX_STOP_CHARS = 256


class Origin(enum.StrEnum):
    """Where a token of the text came from."""

    EDGE = "edge"  # committed on the device, not judged
    ACCEPTED = "accepted"  # drafted on the device and held by the target
    CORRECTED = "corrected"  # the target's choice where the draft failed
    CLOUD = "cloud"  # the target's own: a bonus token, or written on credit


class SamplingParams(msgspec.Struct, frozen=True, array_like=True, kw_only=True, forbid_unknown_fields=True):
    """How a token is chosen from logits, and when a text ends. The order of the fields is that of the wire.

    A choice takes the model's logits, adds logit_bias, takes off the penalties of what the text so far holds, leaves
    out what the grammar does, divides by temperature, and cuts by min_p, top_k and top_p, in this order. The text so
    far is what was generated: prompts do not count, for the two sides may have different ones.

    max_tokens: the text ends after this many tokens.
    end_ids: or at one of these, which belongs to the text.
    seed: of the noise; 0 to 2**64 - 1.
    temperature: 0 is greedy.
    top_p: keep the smallest set of tokens with at least this probability; 1 keeps all.
    top_k: keep the k most probable tokens; 0 keeps all.
    min_p: keep tokens with at least this share of the probability of the most probable one; 0 keeps all.
    presence_penalty: taken off the logit of each token that the text holds.
    frequency_penalty: taken off it as often as the text holds the token.
    repetition_penalty: the logit of each token that the text holds is divided by it, multiplied where it is negative.
    logit_bias: token ids, ascending, and what is added to the logit of each.
    top_logprobs: the model's own log-probability of each token is told, and those of so many of the most probable
        ones; None: nothing of it.
    stop: the text ends where one of these strings has come, which does not belong to it.
    grammar: the text follows it: tokens that it has no place for are never chosen, and where it is complete the text
        ends. Tokens are left out one by one and the others chosen among as ever, which is not the model's distribution
        of the texts that follow the grammar (Park et al. 2024, arXiv 2405.21047).
    """

    max_tokens: int = 128
    end_ids: Annotated[tuple[int, ...], Meta(max_length=MAX_END_IDS)] = ()  # bounded before it is allocated
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Annotated[tuple[tuple[int, float], ...], Meta(max_length=MAX_BIASED_IDS)] = ()
    top_logprobs: int | None = None
    stop: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)], ...], Meta(max_length=MAX_STOPS)
    ] = ()
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        require(0 <= self.temperature <= 100, "temperature", self.temperature, "0 to 100")
        require(self.top_k >= 0, "top_k", self.top_k, "0 or more")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        require(0 <= self.seed < 2**64, "seed", self.seed, "0 to 2**64 - 1")
        require(1 <= self.max_tokens <= 2**20, "max_tokens", self.max_tokens, "1 to 2**20")
        require(0 <= self.min_p <= 1, "min_p", self.min_p, "0 to 1")
        for name in ("presence_penalty", "frequency_penalty"):
            require(-2 <= (penalty := getattr(self, name)) <= 2, name, penalty, "-2 to 2")
        require(0.1 <= self.repetition_penalty <= 10, "repetition_penalty", self.repetition_penalty, "0.1 to 10")
        self._check_bias()
        if self.top_logprobs is not None:
            require(0 <= self.top_logprobs <= MAX_TOP_LOGPROBS, "top_logprobs", self.top_logprobs, "0 to 20")
        require(len(self.stop) <= MAX_STOPS, "the number of stop strings", len(self.stop), "at most 4")
        for stop in self.stop:
            require(1 <= len(stop) <= MAX_STOP_CHARS, "the length of a stop string", len(stop), "1 to 256")

    def _check_bias(self) -> None:
        require(
            len(self.logit_bias) <= MAX_BIASED_IDS, "the length of logit_bias", len(self.logit_bias), "at most 1024"
        )
        last = -1
        for token_id, bias in self.logit_bias:
            require(
                last < token_id < MAX_VOCABULARY,
                "a token id of logit_bias",
                token_id,
                f"more than {last} and less than {MAX_VOCABULARY}: ids ascend from 0",
            )
            require(-100 <= bias <= 100, f"logit_bias of token {token_id}", bias, "-100 to 100")
            last = token_id

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether what the text so far holds is made more or less likely to come again."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1)

    @property
    def shapes_logits(self) -> bool:
        """Whether the logits of a row change before they are warped."""
        return bool(self.logit_bias) or self.has_penalties or self.grammar is not None

    def up_to(self, max_tokens: int) -> SamplingParams:
        """The same for a text of at most so many tokens."""
        return self if self.max_tokens <= max_tokens else msgspec.structs.replace(self, max_tokens=max_tokens)

    def is_end(self, token_ids: Sequence[int]) -> bool:
        """Whether a text of these tokens is complete."""
        return len(token_ids) >= self.max_tokens or (bool(token_ids) and token_ids[-1] in self.end_ids)


class TokenLogprobs(msgspec.Struct, frozen=True):
    """What the target model itself says of a token: natural logarithms, before bias, penalties, temperature and cuts.

    logprob: of the token.
    top: the most probable tokens there, most probable first, and the log-probability of each.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Finish(enum.StrEnum):
    """Why a text ended."""

    STOP = "stop"  # by itself: at an end token or a stop string
    LENGTH = "length"  # it is as long as it may be


class Token(msgspec.Struct, frozen=True):
    """A token of the text and where it came from.

    logprobs: where they were asked for and the target has judged it.
    round: number of the verdict that brought it, from 1; None: none did.
    """

    token_id: int
    origin: Origin
    logprobs: TokenLogprobs | None = None
    round: int | None = None


class TextPiece(NamedTuple):
    """What may be shown now of a text that is being written.

    text: what follows the pieces before it; a character or a stop string that is unfinished is withheld.
    tokens: those whose text begins in it; none where it is the rest of one that was begun.
    """

    text: str
    tokens: tuple[Token, ...]


def tokens_of(pieces: Iterable[TextPiece]) -> tuple[Token, ...]:
    """The tokens of pieces, in order."""
    return tuple(token for piece in pieces for token in piece.tokens)


class TokenSignals(msgspec.Struct, frozen=True):
    """How sure the draft model was of one token that it drafted.

    entropy_nats: of its distribution (temperature 1, nothing cut).
    log_prob: of the token, natural logarithm.
    margin: probability of its best token less that of its second best.
    """

    entropy_nats: float
    log_prob: float
    margin: float
