"""How much of something may be used: so much a second, and more at once by whoever has used less."""

from __future__ import annotations


class Allowance:
    """What flows in evenly and may be saved up.

    What is used beyond it is owed: `wait_s` says until when.

    Args:
        per_s: what flows in.
        at_once: that may be saved up; it is there from the beginning.
    """

    def __init__(self, per_s: float, at_once: float) -> None:
        self._per_s = per_s
        self._saving_s = at_once / per_s
        self._paid_until_s = float("-inf")

    def use(self, amount: float, now_s: float) -> None:
        """Take out an amount. now_s: of a monotonic clock."""
        self._paid_until_s = max(self._paid_until_s, now_s - self._saving_s) + amount / self._per_s

    def wait_s(self, now_s: float) -> float:
        """How long until something is left again; 0: something is."""
        return max(0.0, self._paid_until_s - now_s)
