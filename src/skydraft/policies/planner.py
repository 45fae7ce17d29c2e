"""Which way to draft, by measurement: asked at every verdict, answers in microseconds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from skydraft.core import Objective
from skydraft.policies.confidence import Confidence
from skydraft.policies.estimates import Estimates
from skydraft.policies.throughput import Conditions, cloud_tokens_per_s, free_running_tokens_per_s
from skydraft.policies.way import CLOUD, FREE, Way

# The model is right to about 15 % (docs/throughput.md). Drafting costs the cloud nothing but the positions that it
# judges in vain, so it goes on for as long as the model sees any gain; and it is tried again, since what
# is not drafted is not measured.
LEAST_GAIN = 1.02
STOP_GAIN = 1.005
RETRY_TOKENS = 64
REVIEW_TOKENS = 8  # between two looks

LEAST_PROB, MOST_PROB = 0.005, 0.3
WASTE_GOAL = 0.4  # positions computed beyond those that wrote a token, per token: under objective cost
WASTE_STEP = 0.15


@dataclass
class Planner:
    """Of one device with one cloud; what it learnt serves the next text too.

    fixed: a way that the user chose; None: by measurement.
    """

    objective: Objective = Objective.LATENCY
    fixed: Way | None = None
    estimates: Estimates = field(default_factory=Estimates)
    confidence: Confidence = field(default_factory=Confidence)
    _way: Way = field(default=FREE, init=False)
    _reviewed_at: int = field(default=0, init=False)  # length of the text
    _offer_prob: float = field(default=0.5, init=False)

    def begin(self) -> Way:
        """A new text begins: the way to draft it at first."""
        self._reviewed_at = 0
        self._way = self.fixed or (self._choose() if self._way is not CLOUD else FREE)
        return self._way

    def review(self, length: int, num_positions: int) -> Way:
        """The way to go on.

        Args:
            length: of the text.
            num_positions: that the cloud computed for it.
        """
        wait = RETRY_TOKENS if self._way is CLOUD else REVIEW_TOKENS
        if self.fixed is None and length - self._reviewed_at >= wait:
            self._reviewed_at = length
            self._steer(length, num_positions)
            self._way = self._choose()
        return self._way

    def conditions(self) -> Conditions:
        """What the estimates say of drafting freely."""
        estimates = self.estimates
        return Conditions(
            draft_s=estimates.draft_s.at(FREE.width),
            verify_s=estimates.verify_s.at(1 + FREE.width),
            step_s=estimates.verify_s.at(1),
            round_trip_s=estimates.round_trip_s or 0.0,
            run_length=estimates.run_length,
        )

    def _choose(self) -> Way:
        match self.objective:
            case Objective.COST:
                return replace(FREE, least_offer_prob=self._offer_prob, least_gain=self._offer_prob)
            case Objective.ENERGY:
                return replace(FREE, width=2, least_prob=0.1)
        conditions = self.conditions()
        free = free_running_tokens_per_s(conditions)
        gain = free / cloud_tokens_per_s(conditions)
        if gain < (LEAST_GAIN if self._way is CLOUD else STOP_GAIN):
            return CLOUD
        # A node pays when the time that it is expected to save is longer than the time that judging it takes.
        least = min(max(self.estimates.verify_s.slope * free, LEAST_PROB), MOST_PROB)
        return replace(FREE, least_prob=least, least_offer_prob=least, least_gain=2 * least)

    def _steer(self, length: int, num_positions: int) -> None:
        """Under objective cost: offer less where more than the goal was judged in vain."""
        waste = (num_positions - length) / length
        factor = 1 + WASTE_STEP if waste > WASTE_GOAL else 1 / (1 + WASTE_STEP)
        self._offer_prob = min(max(self._offer_prob * factor, LEAST_PROB), 0.95)
