"""Which way to draft, by measurement: asked at every verdict, answers in microseconds. No clocks: times are given.

A planner is told what is seen, in every mode and under every rule. The client of the cloud tells it of connections,
questions and answers (`edge/cloud_client`), whoever runs the draft model of draft steps. It is in one of two states:

    state       event               what it learns or decides                                   next
    -----       -----               -------------------------                                   ----
    idle        begin               the way to draft a text at first                            drafting
                saw_answer          the pace of the cloud alone, or of rounds                   idle
    drafting    saw_answer          the same, the speed while drafting; every REVIEW_TOKENS     drafting
                                    tokens of the text a way anew
                stop_drafting       -                                                           idle
    either      saw_connection      the next answer may wait for a prompt and is not timed
                saw_question        a round begins: with saw_answer a round trip and a pass
                saw_ping            the round trip
                saw_draft_step      the pace of the draft model
                saw_afresh          the pace of a cloud that was not used for a while

How passes and rounds are timed depends on rule 6 of docs/protocol.md: a cloud with credit runs one pass after the
other, one without it waits for offers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from skydraft.core import Objective
from skydraft.policies.confidence import Confidence
from skydraft.policies.estimates import Estimates
from skydraft.policies.look_again import LookAgain
from skydraft.policies.throughput import (
    Conditions,
    cloud_tokens_per_s,
    fitted_run_length,
    free_running_tokens_per_s,
)
from skydraft.policies.way import CLOUD, FREE, SURE, Way

# The model is right to about 15 % (docs/throughput.md). Drafting costs the cloud nothing but the positions that it
# judges in vain, so it goes on for as long as the model sees any gain; and it is tried again, since what
# is not drafted is not measured.
LEAST_GAIN = 1.02
STOP_GAIN = 1.005
RETRY_TOKENS = 64
REVIEW_TOKENS = 8  # between two looks
USUAL_RUN = 6.0  # before anything was measured

LEAST_PROB, MOST_PROB = 0.01, 0.15
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
    look_again: LookAgain = field(default_factory=LookAgain)
    way: Way = field(default=FREE, init=False)
    _is_drafting: bool = field(default=False, init=False)
    _begun_s: float = field(default=0.0, init=False)
    _length: int = field(default=0, init=False)  # of the text, since drafting began
    _num_positions: int = field(default=0, init=False)  # that the cloud computed for it
    _reviewed_at: int = field(default=0, init=False)  # length of the text
    _changed_at: int = field(default=0, init=False)  # or last found to be drafting
    _run_length: float | None = field(default=None, init=False)
    _tokens_per_s: float = field(default=0.0, init=False)
    _offer_prob: float = field(default=0.5, init=False)

    def begin(self, now_s: float = 0.0) -> Way:
        """The device begins to draft, a new text or the rest of one: the way to do it at first."""
        self._is_drafting, self._begun_s = True, now_s
        self._length = self._num_positions = self._reviewed_at = self._changed_at = 0
        self._tokens_per_s = cloud_tokens_per_s(self.conditions())
        self.way = self.fixed or (self._choose() if self.way is not CLOUD else self._freest)
        return self.way

    def stop_drafting(self) -> None:
        """The device does not draft any more; the cloud may write on."""
        self._is_drafting = False

    def saw_connection(self) -> None:
        """There is a new connection: the cloud's next answer may have waited for a prompt to be read."""
        self.estimates.begin_passes()

    def saw_question(self, now_s: float) -> None:
        """An offer left for a cloud that had none to judge."""
        self.estimates.begin_round(now_s)

    def saw_answer(self, now_s: float, num_tokens: int, num_positions: int, has_credit: bool) -> None:
        """The text grew by what the cloud said.

        Args:
            num_tokens: that it grew by. num_positions: that the cloud computed for that.
            has_credit: the cloud writes on by itself.
        """
        if has_credit:
            is_drafted = self._is_drafting and bool(self.way.width)
            self.estimates.observe_pass(now_s, num_positions, num_tokens, is_drafted)
        else:
            self.estimates.end_round(now_s, num_positions)
        if self._is_drafting:
            self._length += num_tokens
            self._num_positions += num_positions
            self.review(self._length, self._num_positions, now_s - self._begun_s)

    def saw_ping(self, seconds: float) -> None:
        """A ping was answered after so long."""
        self.estimates.observe_round_trip(seconds)

    def saw_draft_step(self, num_read: float, seconds: float) -> None:
        """The draft model read so many tokens in one pass, in so long."""
        self.estimates.draft_s.observe(num_read, seconds)

    def saw_afresh(self, pass_s: float) -> None:
        """A cloud that was not used for a while takes so long for a pass of one position."""
        self.estimates.observe_afresh(pass_s)

    @property
    def tokens_per_step(self) -> float:
        """What the text grows by in the time of a draft step: what one more must gain to be worth waiting for."""
        return self._tokens_per_s * self.estimates.draft_s.at(self.way.width)

    def review(self, length: int, num_positions: int, elapsed_s: float) -> Way:
        """The way to go on.

        Args:
            length: of the text.
            num_positions: that the cloud computed for it.
            elapsed_s: since the text began.
        """
        self._tokens_per_s = length / elapsed_s if elapsed_s > 0 else 0.0
        if self.fixed is None and length - self._reviewed_at >= REVIEW_TOKENS:
            self._reviewed_at = length
            self._steer(length, num_positions)
            self._fit()
            way = self._choose()
            if way is not CLOUD or self.way is not CLOUD:
                self._changed_at = length
            is_due = length - self._changed_at >= RETRY_TOKENS
            self.way = self._freest if is_due else way
        return self.way

    def conditions(self) -> Conditions:
        """What the estimates say of drafting freely."""
        estimates = self.estimates
        conditions = Conditions(
            draft_s=estimates.draft_s.at(FREE.width),
            verify_s=estimates.verify_s.at(1 + FREE.width),
            step_s=estimates.verify_s.at(1),
            round_trip_s=estimates.round_trip_s or 0.0,
            run_length=USUAL_RUN,
        )
        if self._run_length is not None:
            return replace(conditions, run_length=self._run_length)
        return conditions

    @property
    def _freest(self) -> Way:
        """To draft as much as the objective lets, whatever was measured."""
        return SURE if self.objective is Objective.PRIVACY else FREE

    def _fit(self) -> None:
        """The run length that explains the speed, while the device drafts."""
        speed = self.estimates.drafted_tokens_per_s
        if self.way is not CLOUD and speed is not None:
            self._run_length = fitted_run_length(speed, self.conditions())

    def _choose(self) -> Way:
        match self.objective:
            case Objective.COST:
                return replace(FREE, least_offer_prob=self._offer_prob, least_gain=self._offer_prob)
            case Objective.ENERGY:
                return replace(FREE, width=2, least_prob=0.1)
        if not (self.estimates.draft_s.is_seen and self.estimates.verify_s.is_seen):
            return self._freest  # what was not measured is no reason to stop
        conditions = self.conditions()
        free = free_running_tokens_per_s(conditions)
        gain = free / cloud_tokens_per_s(conditions)
        if gain < (LEAST_GAIN if self.way is CLOUD else STOP_GAIN):
            return CLOUD
        if self._freest is SURE:
            return SURE
        # A node pays when the time that it is expected to save is longer than the time that judging it takes.
        least = min(max(self.estimates.verify_s.slope * free, LEAST_PROB), MOST_PROB)
        return replace(FREE, least_offer_prob=least, least_gain=2 * least)

    def _steer(self, length: int, num_positions: int) -> None:
        """Under objective cost: offer less where more than the goal was judged in vain."""
        waste = (num_positions - length) / length
        factor = 1 + WASTE_STEP if waste > WASTE_GOAL else 1 / (1 + WASTE_STEP)
        self._offer_prob = min(max(self._offer_prob * factor, LEAST_PROB), 0.95)
