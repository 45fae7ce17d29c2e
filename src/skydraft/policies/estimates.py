"""Running estimates of what a round is made of. The caller brings the times; no clocks here."""

from __future__ import annotations

from dataclasses import dataclass, field

SMOOTHING = 1 / 8  # of a new round trip, and twice that of its deviation: RFC 6298
FORGETTING = 0.97  # of a line: about the last 33 observations count
MEMORY = 24  # failures that the mean run looks back


@dataclass
class RunningLine:
    """A line through observations that fade: value = base + slope * (count - 1), neither of them negative.

    base, slope: where it begins; they weigh as one observation at 1 and a weak one at 9.
    """

    base: float
    slope: float
    is_seen: bool = field(default=False, init=False)  # something was observed
    _sums: list[float] = field(default_factory=list, init=False)  # of 1, x, x * x, y, x * y

    def __post_init__(self) -> None:
        self._sums = [0.0] * 5
        self._add(1, self.base, 0.5)
        self._add(9, self.base + 8 * self.slope, 0.1)

    def at(self, count: float) -> float:
        return self.base + self.slope * (count - 1)

    def observe(self, count: float, value: float) -> None:
        self.is_seen = True
        self._sums = [FORGETTING * total for total in self._sums]
        self._add(count, value, 1.0)
        weight, x, xx, y, xy = self._sums
        spread = weight * xx - x * x
        # Where all counts are equal, the slope cannot be seen and stays.
        if spread > 1e-3 * weight * weight:
            self.slope = max(0.0, (weight * xy - x * y) / spread)
        self.base = max(0.0, (y - self.slope * x) / weight)

    def _add(self, count: float, value: float, weight: float) -> None:
        x = count - 1
        for index, term in enumerate((1.0, x, x * x, value, x * value)):
            self._sums[index] += weight * term


@dataclass
class Estimates:
    """Of one device with one cloud; they outlive a text. Times in seconds.

    draft_s: a draft step against the nodes that it reads.
    verify_s: a forward pass of the cloud against the positions that it computes, all that it does in between included.
    round_trip_s, jitter_s: of the link; None before the first.
    run_length: tokens of the text from one that was not guessed to the next.
    num_by_depth: for each distance from the verified text, how many offered tokens were judged there and how many held.
    """

    draft_s: RunningLine = field(default_factory=lambda: RunningLine(0.01, 0.0005))
    verify_s: RunningLine = field(default_factory=lambda: RunningLine(0.03, 0.0005))
    round_trip_s: float | None = None
    jitter_s: float = 0.0
    run_length: float = 6.0
    num_by_depth: dict[int, list[int]] = field(default_factory=dict)
    _num_in_run: int = field(default=0, init=False)

    def observe_round_trip(self, seconds: float) -> None:
        if self.round_trip_s is None:
            self.round_trip_s, self.jitter_s = seconds, seconds / 2
            return
        self.jitter_s += 2 * SMOOTHING * (abs(seconds - self.round_trip_s) - self.jitter_s)
        self.round_trip_s += SMOOTHING * (seconds - self.round_trip_s)

    def observe_text(self, num_tokens: int, num_guessed: int) -> None:
        """The text grew.

        Args:
            num_guessed: how many of the new tokens, from the first on, the device had among its guesses.
        """
        if num_guessed == num_tokens:
            self._num_in_run += num_tokens
            return
        self.run_length += (self._num_in_run + num_guessed + 1 - self.run_length) / MEMORY
        self._num_in_run = num_tokens - num_guessed - 1

    def observe_verdict(self, num_offered: int, num_held: int) -> None:
        """A chain, or the deepest branch of a tree, was judged."""
        for depth in range(min(num_offered, num_held + 1)):
            judged = self.num_by_depth.setdefault(depth, [0, 0])
            judged[0] += 1
            judged[1] += depth < num_held
