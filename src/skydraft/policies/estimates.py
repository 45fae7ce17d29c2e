"""Running estimates of what a round is made of. The caller brings the times; no clocks here."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

from skydraft.core import PassTimes

NUM_ROUND_TRIPS = NUM_SLOWER = 3  # of which the median counts: one that a freeze delayed does not
LEAST_PASS_S = 0.001  # where a round took no longer than a ping
MOST_SURPRISE = 3.0  # an observation counts as at most so many times what was expected, and at least as its inverse
FORGETTING = 0.97  # of a line: about the last 33 observations count
LEAST_BASE = 0.05  # of the mean: chance may draw a steep line, and a pass that takes no time has no speed
USUAL_SLOPE = 1 / 250  # of the base, where memory bounds a pass
SLOPE_PRIOR = 25.0  # how much that counts, as a variance of counts: few positions more or less say little of their cost
SPEED_FORGETTING = 0.92  # a window or a round: about the last twelve count
LEAST_SPEEDS = 5  # windows before it counts: the first of a text are slow, for the tree is small
WINDOW_S = 0.1  # and passes of a window: what a freeze held back arrives at once, and counts as one observation
WINDOW_PASSES = 3
MOST_CONTENTION = 3.0


@dataclass
class RunningLine:
    """A line through observations that fade: value = base + slope * (count - 1), neither of them negative.

    base, slope: what is said before anything was observed.
    usual: the slope that few observations are taken to have, as a share of the base.
    """

    base: float
    slope: float
    usual: float = USUAL_SLOPE
    is_seen: bool = field(default=False, init=False)  # something was observed
    is_told: bool = field(default=False, init=False)
    _sums: list[float] = field(default_factory=lambda: [0.0] * 5, init=False)  # of 1, x, x * x, y, x * y

    def at(self, count: float) -> float:
        return self.base + self.slope * (count - 1)

    def tell(self, times: PassTimes) -> None:
        """What somebody else measured: believed where nothing was observed here, and the slope until more was."""
        self.usual, self.is_told = times.node_s / times.step_s, True
        if not self.is_seen:
            self.base, self.slope = times.step_s, times.node_s

    def observe(self, count: float, value: float) -> None:
        """Take in an observation; what surprises counts less, so that a pause is not taken for the pace."""
        expected = self.at(count)
        if self.is_seen and expected > 0:
            value = _unsurprising(value, expected)
        self.is_seen = True
        x = count - 1
        terms = (1.0, x, x * x, value, x * value)
        self._sums = [FORGETTING * total + term for total, term in zip(self._sums, terms, strict=True)]
        weight, *sums = self._sums
        mean_x, mean_xx, mean_y, mean_xy = (total / weight for total in sums)
        variance, covariance = mean_xx - mean_x**2, mean_xy - mean_x * mean_y
        # As if one more cloud of points, of variance SLOPE_PRIOR, had the usual slope.
        self.slope = max(0.0, (covariance + SLOPE_PRIOR * self.usual * mean_y) / (variance + SLOPE_PRIOR))
        self.base = max(LEAST_BASE * mean_y, mean_y - self.slope * mean_x)


def _usual_pass() -> RunningLine:
    return RunningLine(0.03, 0.0001)


@dataclass
class RunningSpeed:
    """Tokens per second, of late."""

    num_seen: int = field(default=0, init=False)
    _num_tokens: float = field(default=0.0, init=False)  # these fade
    _seconds: float = field(default=0.0, init=False)

    def observe(self, num_tokens: float, seconds: float) -> None:
        self.num_seen += 1
        self._num_tokens = SPEED_FORGETTING * self._num_tokens + num_tokens
        self._seconds = SPEED_FORGETTING * self._seconds + seconds

    @property
    def tokens_per_s(self) -> float | None:
        """None before enough was seen to tell."""
        return self._num_tokens / self._seconds if self.num_seen >= LEAST_SPEEDS else None


@dataclass
class Estimates:
    """Of one device with one cloud; they outlive a text. Times in seconds.

    is_near: the cloud is on this machine: it may be slower while the device computes.
    draft_s: a draft step against the nodes that it reads.
    verify_s: a forward pass of the cloud against the positions that it computes, all that it does in between included.
    round_trip_s: of the link; None before the first.
    speed: of the text, in the way to draft in use.
    """

    is_near: bool = False
    draft_s: RunningLine = field(default_factory=lambda: RunningLine(0.01, 0.0002))
    verify_s: RunningLine = field(default_factory=_usual_pass)
    round_trip_s: float | None = None
    speed: RunningSpeed = field(default_factory=RunningSpeed)
    _window: _Window | None = field(default=None, init=False)
    _asked_s: float | None = field(default=None, init=False)
    _answered_s: float | None = field(default=None, init=False)  # last, since the cloud was asked to begin
    _slower: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_SLOWER), init=False)
    _round_trips_s: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_ROUND_TRIPS), init=False)

    @property
    def contention(self) -> float:
        """How many times longer a pass takes while the device computes, and a draft step while the cloud does."""
        return statistics.median_low(self._slower) if self._slower else 1.0

    def forget_contention(self) -> None:
        """What slowed both down may have been something else, and over."""
        self._slower.clear()

    def observe_round_trip(self, seconds: float) -> None:
        self._round_trips_s.append(seconds)
        self.round_trip_s = statistics.median_low(self._round_trips_s)

    def observe_draft_step(self, num_read: float, seconds: float, is_beside: bool) -> None:
        """The draft model read so many tokens. is_beside: while the cloud computed."""
        if not (is_beside and self.is_near and self.draft_s.is_told):
            self.draft_s.observe(num_read, seconds)

    def begin_passes(self) -> None:
        """The cloud was asked to begin or to go on: its next answer may have waited for a prompt to be read."""
        self._window = self._asked_s = self._answered_s = None

    def begin_way(self) -> None:
        """Another way to draft begins: what was seen of the speed was of the one before."""
        self.begin_passes()
        self.speed = RunningSpeed()

    def begin_round(self, now_s: float) -> None:
        """A cloud that had nothing to do, and has no credit, was asked: its answer takes a round trip and a pass."""
        self._asked_s = now_s

    def end_round(self, now_s: float, num_positions: int, num_tokens: int) -> None:
        """The first answer since `begin_round` arrived; without that nothing is learnt of it.

        Args:
            num_positions: that the pass computed. num_tokens: that it wrote.
        """
        asked_s, self._asked_s = self._asked_s, None
        answered_s, self._answered_s = self._answered_s, now_s
        if asked_s is None or answered_s is None:
            return
        self.speed.observe(num_tokens, now_s - answered_s)
        if self.round_trip_s is not None:
            self.verify_s.observe(num_positions, max(now_s - asked_s - self.round_trip_s, LEAST_PASS_S))

    def observe_afresh(self, pass_s: float) -> None:
        """Passes of one position took so long now. What was known of passes is of another time, and forgotten."""
        self.verify_s = _usual_pass()
        self.verify_s.observe(1, max(pass_s, LEAST_PASS_S))

    def observe_pass(self, now_s: float, num_positions: int, num_tokens: int, is_drafted: bool) -> None:
        """The answer of a pass arrived; those that arrive within a short time are taken together.

        Args:
            num_positions: that the pass computed. num_tokens: that it wrote.
            is_drafted: the device drafts; otherwise the cloud writes alone.
        """
        self._answered_s = now_s
        if self._window is None:
            self._window = _Window(now_s)
            return
        window = self._window
        window.num_passes += 1
        window.num_positions += num_positions
        window.num_tokens += num_tokens
        seconds = now_s - window.begun_s
        if seconds < WINDOW_S or window.num_passes < WINDOW_PASSES:
            return
        self._window = _Window(now_s)
        count, pass_s = window.num_positions / window.num_passes, seconds / window.num_passes
        if is_drafted:
            expected_s = window.num_passes * self.verify_s.at(count) * self.contention
            speed = window.num_tokens / _unsurprising(seconds, expected_s)
            self.speed.observe(speed * WINDOW_S, WINDOW_S)  # one window counts as much as another
        if is_drafted and self.is_near and (self.verify_s.is_told or self.verify_s.is_seen):
            self._slower.append(min(max(pass_s / self.verify_s.at(count), 1.0), MOST_CONTENTION))
        else:
            self.verify_s.observe(count, pass_s)


@dataclass
class _Window:
    begun_s: float
    num_passes: int = 0
    num_positions: int = 0
    num_tokens: int = 0


def _unsurprising(value: float, expected: float) -> float:
    return min(max(value, expected / MOST_SURPRISE), expected * MOST_SURPRISE)
