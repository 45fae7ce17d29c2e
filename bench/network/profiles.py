"""Whose pace is emulated: one table, for paced models and for virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skydraft.engines.emulated.paced import PREFIX, Pace

TEXT = Path(__file__).parents[3] / "shared" / "text"

DRAFTS = ("q4", "d64", "d32")  # greedy agreement with the target 0.76, 0.64, 0.52

# What more nodes cost: a small model on a device is bound by its arithmetic sooner than a large one by its own.
DRAFT_NODE_SHARE = 0.02  # of the draft step, each further node of a step
CLOUD_NODE_SHARE = 0.004  # of the cloud's step, each further position of a pass
DRAFT_PROMPT_MS = 0.2  # each token
CLOUD_PROMPT_MS = 0.1


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
