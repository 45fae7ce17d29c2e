"""How drafts do in one kind of text: in code nearly every guess is right, in a talk every third is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from skydraft.policies.confidence import Confidence
from skydraft.policies.look_again import LookAgain
from skydraft.policies.match_confidence import MatchConfidence

RETRY_TOKENS = 64


@dataclass
class Habits:
    """Of one pair of models; what is learnt in a text serves the next of its kind.

    run_length: that fits the speed of drafting; None: it was not tried.
    retry: when drafts that failed count as not tried.
    """

    confidence: Confidence = field(default_factory=Confidence)
    match_confidence: MatchConfidence = field(default_factory=MatchConfidence)
    run_length: float | None = None
    retry: LookAgain = field(default_factory=lambda: LookAgain(RETRY_TOKENS))
