"""Which way to draft, by measurement: asked at every answer, decides in microseconds. No clocks: times are given.

A planner is told what is seen, in every mode and under every rule. The client of the cloud tells it of connections,
questions and answers (`edge/cloud_client`), whoever runs the draft model of draft steps. It is in one of three states:

    state       event               what it learns or decides                                   next
    -----       -----               -------------------------                                   ----
    idle        begin               whether drafting may pay; beside a cloud on this machine,   drafting
                                    whether it is known to, and not to delay the first token    alone
                saw_answer          the pace of the cloud alone, or of rounds                   idle
    alone       saw_pass_times      a cloud elsewhere: whether drafting may pay                 drafting, alone
    (way CLOUD) saw_answer          the pace of the cloud alone; whether drafting may pay       drafting, alone
    drafting    saw_answer          the speed while drafting, and how much device and cloud     drafting, alone
                                    hold each other up; every REVIEW_TOKENS a way anew
    any         stop_drafting       -                                                           idle
                saw_interruption    the next answer may wait for a prompt and is not timed; nor is
                                    the time in which the text was held up
                saw_question        a round begins: with saw_answer a round trip and a pass
                saw_ping            the round trip
                saw_pass_times      what passes of this cloud take, as it says
                saw_draft_step      the pace of the draft model
                saw_afresh          the pace of a cloud that was not used for a while

In state alone the device computes nothing, and has not even read its prompt. It is left where the model of
docs/throughput.md expects LEAST_GAIN, or HOPED_GAIN of drafts that were not tried beside a cloud on this machine: a
trial may hold it up. Drafts that failed count as not tried after RETRY_TOKENS, and twice as many after each failure.
After as many tokens in turns, drafts are made freely for a moment, to see whether both still hold each other up.

How passes and rounds are timed depends on rule 6 of docs/protocol.md: a cloud with credit runs one pass after the
other, one without it waits for offers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from skydraft.core import Objective, PassTimes
from skydraft.policies.estimates import Estimates
from skydraft.policies.habits import Habits
from skydraft.policies.look_again import LookAgain
from skydraft.policies.throughput import (
    MOST_RUN,
    Conditions,
    cloud_tokens_per_s,
    fitted_run_length,
    fitted_turns_run_length,
    free_running_tokens_per_s,
    turns_tokens_per_s,
)
from skydraft.policies.undrafted import Undrafted, why_undrafted
from skydraft.policies.way import CLOUD, FREE, SURE, SURE_PROB, TURNS, Way

# The model is right to about 15 % (docs/throughput.md); what was fitted to a measurement is better than that.
HOPED_GAIN = 1.1
LEAST_GAIN = 1.02
STOP_GAIN = 1.005
REVIEW_TOKENS = 4  # between two looks
SHARED = 1.4  # contention from here on: device and cloud have one processor

LEAST_PROB, MOST_READ_PROB, MOST_OFFER_PROB = 0.01, 0.3, 0.5
WASTE_GOAL = 0.4  # positions computed beyond those that wrote a token, per token: under objective cost
WASTE_STEP = 0.15


@dataclass
class Planner:
    """Of one device with one cloud; what it learnt serves the next text too.

    fixed: a way that the user chose; None: by measurement.
    has_draft: there is a draft model; without one the cloud writes on by itself, and guesses can only be looked up.
    habits: of the kind of text that is written.
    """

    objective: Objective = Objective.LATENCY
    fixed: Way | None = None
    estimates: Estimates = field(default_factory=Estimates)
    has_draft: bool = True
    habits: Habits = field(default_factory=Habits)
    look_again: LookAgain = field(default_factory=LookAgain)
    way: Way = field(default=CLOUD, init=False)
    _is_drafting: bool = field(default=False, init=False)
    _begun_s: float = field(default=0.0, init=False)
    _length: int = field(default=0, init=False)  # of the text, since drafting began
    _num_positions: int = field(default=0, init=False)  # that the cloud computed for it
    _reviewed_at: int = field(default=0, init=False)  # length of the text
    _is_step_old: bool = field(default=False, init=False)  # a draft step may be under way that began in another way
    _tokens_per_s: float = field(default=0.0, init=False)
    _offer_prob: float = field(default=0.5, init=False)

    def begin(self, now_s: float = 0.0) -> Way:
        """The device begins to draft, a new text or the rest of one: the way to do it at first."""
        self._is_drafting, self._begun_s = True, now_s
        self._length = self._num_positions = self._reviewed_at = 0
        self._tokens_per_s = cloud_tokens_per_s(self.conditions())
        way = self.fixed or self._choose()
        may_hold_up = self.estimates.is_near and self.habits.run_length is None
        is_by_speed = self.fixed is None and self.objective in (Objective.LATENCY, Objective.PRIVACY)
        self._take(CLOUD if is_by_speed and (may_hold_up or not way.has_credit) else way)
        return self.way

    def stop_drafting(self) -> None:
        """The device does not draft any more; the cloud may write on."""
        self._is_drafting = False

    def saw_interruption(self, held_up_s: float = 0.0) -> None:
        """There is a new connection, and the cloud's next answer may have waited for a prompt; or the text was held up.

        Args:
            held_up_s: so long.
        """
        self._begun_s += held_up_s
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
            self.estimates.end_round(now_s, num_positions, num_tokens)
        if self._is_drafting:
            self._length += num_tokens
            self._num_positions += num_positions
            is_failed = self.way is CLOUD and self.habits.run_length is not None
            is_in_turns = self.fixed is None and not self.way.has_credit
            if (is_failed or is_in_turns) and self.habits.retry.wrote(num_tokens):
                self.habits.run_length = None
                self.estimates.forget_contention()
            self.review(self._length, self._num_positions, now_s - self._begun_s)

    def saw_ping(self, seconds: float) -> None:
        """A ping was answered after so long."""
        self.estimates.observe_round_trip(seconds)

    def saw_pass_times(self, times: PassTimes) -> None:
        """The cloud says what its passes take."""
        self.estimates.verify_s.tell(times)
        if self._is_drafting and self.fixed is None and not self.estimates.is_near:
            self._take(self._choose())

    def saw_draft_step(self, num_read: float, seconds: float) -> None:
        """The draft model read so many tokens in one pass, in so long."""
        if self._is_step_old:
            self._is_step_old = False
            return
        self.estimates.observe_draft_step(num_read, seconds, self._is_drafting and self.way.has_credit)

    def saw_afresh(self, pass_s: float) -> None:
        """A cloud that was not used for a while takes so long for a pass of one position."""
        self.estimates.observe_afresh(pass_s)

    def tokens_in_step(self, num_nodes: int) -> float:
        """What the text grows by in the time of a draft step: what one more must gain to be worth waiting for."""
        return self._tokens_per_s * self.estimates.draft_s.at(num_nodes)

    @property
    def least_lookup_prob(self) -> float:
        """Of a token that was looked up, given the text: from here on, judging it takes less time than it saves.

        That costs the device nothing, so it does not depend on whether drafting with a model pays.
        """
        verify = self.estimates.verify_s
        match self.objective:
            case Objective.COST:
                least = self._offer_prob
            case Objective.PRIVACY:
                least = SURE_PROB
            case _:
                least = LEAST_PROB
        return max(verify.slope / verify.base, least)

    @property
    def best_tokens_per_s(self) -> float:
        """Of device and cloud together: never less than the cloud alone, for then the device does not draft."""
        conditions = self.conditions()
        return max(self._model(conditions), cloud_tokens_per_s(conditions))

    @property
    def why_undrafted(self) -> Undrafted | None:
        """Why the cloud writes alone; None: it does not, or for another reason than speed."""
        is_by_speed = self.objective in (Objective.LATENCY, Objective.PRIVACY)
        if self.way is not CLOUD or self.fixed is not None or not self.has_draft or not is_by_speed:
            return None
        return why_undrafted(self._model, self.conditions(), self._gain_to_begin)

    def review(self, length: int, num_positions: int, elapsed_s: float) -> Way:
        """The way to go on.

        Args:
            length: of the text.
            num_positions: that the cloud computed for it.
            elapsed_s: since the text began.
        """
        self._tokens_per_s = length / elapsed_s if elapsed_s > 0 else 0.0
        is_due = not self._reviewed_at or length - self._reviewed_at >= REVIEW_TOKENS
        if self.fixed is None and is_due:
            self._reviewed_at = length
            self._steer(length, num_positions)
            self._fit()
            self._take(self._choose())
        return self.way

    def conditions(self) -> Conditions:
        """What the estimates say of drafting: freely, or in turns where both sides have one processor."""
        estimates = self.estimates
        draft, verify = estimates.draft_s, estimates.verify_s
        slower = 1.0 if self._is_shared else estimates.contention
        least_read, least_offer = self._least_probs(1 / verify.at(1))
        return Conditions(
            draft_s=draft.at(_width(max(least_read, TURNS.least_prob) if self._is_shared else least_read)) * slower,
            verify_s=verify.at(1 + _width(least_offer)) * slower,
            step_s=verify.at(1),
            round_trip_s=estimates.round_trip_s or 0.0,
            run_length=self.habits.run_length or self._usual_run,
            node_s=verify.slope * slower,
        )

    @property
    def _gain_to_begin(self) -> float:
        is_dear = self.estimates.is_near and self.habits.run_length is None
        return HOPED_GAIN if is_dear else LEAST_GAIN

    @property
    def _is_shared(self) -> bool:
        return self.estimates.contention >= SHARED

    @property
    def _usual_run(self) -> float:
        """As long as the best guesses are right; what waits until it is unsure does better."""
        run = 1 / max(1 - self.habits.confidence.agreement, 1 / MOST_RUN)
        return min(2 * run, MOST_RUN) if self._is_shared else run

    def _model(self, conditions: Conditions) -> float:
        return turns_tokens_per_s(conditions) if self._is_shared else free_running_tokens_per_s(conditions)

    def _least_probs(self, tokens_per_s: float) -> tuple[float, float]:
        """Of nodes to read, and of nodes to offer.

        A node pays when the time that it is expected to save is longer than the time that reading or judging it takes.
        """
        read, judge = self.estimates.draft_s.slope * tokens_per_s, self.estimates.verify_s.slope * tokens_per_s
        return _within(read, LEAST_PROB, MOST_READ_PROB), _within(judge, LEAST_PROB, MOST_OFFER_PROB)

    def _take(self, way: Way) -> None:
        if (way.width, way.has_credit) != (self.way.width, self.way.has_credit):
            self.estimates.begin_way()
            self._is_step_old = bool(self.way.width)
            if way.has_credit != self.way.has_credit and self.way.width and way.width:
                self.habits.run_length = None  # it was of another model
        self.way = way

    def _fit(self) -> None:
        """The run length that explains the speed, while the device drafts."""
        speed = self.estimates.speed.tokens_per_s
        if self.way is not CLOUD and speed is not None:
            fitted = fitted_turns_run_length if self._is_shared else fitted_run_length
            self.habits.run_length = fitted(speed, self.conditions())

    def _choose(self) -> Way:
        if not self.has_draft:
            return CLOUD
        match self.objective:
            case Objective.COST:
                return replace(FREE, least_offer_prob=self._offer_prob, least_gain=self._offer_prob)
            case Objective.ENERGY:
                return replace(FREE, width=2, least_prob=0.1)
        is_alone, conditions = self.way is CLOUD, self.conditions()
        measured = None if is_alone else self.estimates.speed.tokens_per_s
        speed = measured or self._model(conditions)
        gain = self._gain_to_begin if is_alone else STOP_GAIN
        if speed < gain * cloud_tokens_per_s(conditions):
            return CLOUD
        if measured and self.way.has_credit:
            self.habits.retry.went_back()
        if self.objective is Objective.PRIVACY:
            return SURE
        read, offer = self._least_probs(speed)
        if self._is_shared:
            return replace(
                TURNS, least_prob=max(TURNS.least_prob, read), least_offer_prob=max(TURNS.least_offer_prob, offer)
            )
        return replace(FREE, least_prob=read, least_offer_prob=offer, least_gain=2 * offer)

    def _steer(self, length: int, num_positions: int) -> None:
        """Under objective cost: offer less where more than the goal was judged in vain."""
        waste = (num_positions - length) / length
        factor = 1 + WASTE_STEP if waste > WASTE_GOAL else 1 / (1 + WASTE_STEP)
        self._offer_prob = _within(self._offer_prob * factor, LEAST_PROB, 0.95)


def _width(least_prob: float) -> float:
    """About how many nodes are as probable at once: 5 of 0.01, 1.6 of 0.1, and one in any case."""
    return _within(0.5 / math.sqrt(least_prob), 1.0, float(FREE.width))


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)
