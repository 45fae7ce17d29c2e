"""Whose pace is emulated: one table, for paced models and for virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

from skydraft.engines.emulated.paced import PREFIX, Pace

TEXT = Path(__file__).parents[3] / "shared" / "text"

DRAFTS = ("q4", "d64", "d32")  # greedy agreement with the target 0.76, 0.64, 0.52

# What more nodes cost: a small model on a device is bound by its arithmetic sooner than a large one by its own.
DRAFT_NODE_SHARE = 0.02  # of the draft step, each further node of a step
CLOUD_NODE_SHARE = 0.004  # of the cloud's step, each further position of a pass
DRAFT_PROMPT_MS = 0.2  # each token
CLOUD_PROMPT_MS = 0.1


class Takes(Protocol):
    """How long passes take."""

    def pass_s(self, num_tokens: int, num_prompt_tokens: int = 0) -> float:
        """Of a pass over so many tokens of texts, and of prompts."""


@dataclass(frozen=True)
class BlockTimes:
    """As it was measured on some machine, block by block; straight lines between and beyond.

    block_ms: pairs of a number of tokens and the time of a pass over them; two at least, from 1 on, ascending.
    prompt_ms: each token of a prompt.
    """

    block_ms: Sequence[tuple[int, float]]
    prompt_ms: float = 0.0

    def pass_s(self, num_tokens: int, num_prompt_tokens: int = 0) -> float:
        time_ms = self.prompt_ms * num_prompt_tokens
        if num_tokens:
            lines = list(pairwise(self.block_ms))
            (low, low_ms), (high, high_ms) = next((line for line in lines if num_tokens <= line[1][0]), lines[-1])
            time_ms += low_ms + (high_ms - low_ms) * (num_tokens - low) / (high - low)
        return time_ms / 1000


class Sides(NamedTuple):
    """What computes: a device and a cloud. is_shared: on one core, so that either is slower while both do."""

    draft_pace: Takes
    cloud_pace: Takes
    is_shared: bool = False


@dataclass(frozen=True)
class Profile:
    """A device and a cloud.

    draft_ms, cloud_ms: a forward pass with one token.
    round_trip_ms: of its link, where that belongs to it; None: any.
    """

    name: str
    what: str
    draft_ms: float
    cloud_ms: float
    round_trip_ms: float | None = None

    @property
    def draft_pace(self) -> Pace:
        return Pace(self.draft_ms, DRAFT_NODE_SHARE * self.draft_ms, DRAFT_PROMPT_MS)

    @property
    def cloud_pace(self) -> Pace:
        return Pace(self.cloud_ms, CLOUD_NODE_SHARE * self.cloud_ms, CLOUD_PROMPT_MS)

    @property
    def sides(self) -> Sides:
        return Sides(self.draft_pace, self.cloud_pace)

    @property
    def target(self) -> str:
        """The name of its target model."""
        return f"{PREFIX}{self.cloud_pace}:{TEXT / 'target'}"

    def draft(self, name: str) -> str:
        """The name of a draft model, one of DRAFTS, at its pace."""
        return f"{PREFIX}{self.draft_pace}:{TEXT / f'draft-{name}'}"


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("P-A", "phone, 8B in the cloud", 10, 30),
        Profile("P-B", "phone, 70B in the cloud", 10, 60),
        Profile("P-C", "robot, vision-language model in the cloud", 72, 620, round_trip_ms=120),
    )
}
