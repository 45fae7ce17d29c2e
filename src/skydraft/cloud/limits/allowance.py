"""How much of something may be used: a rate, and what was saved of it (a token bucket)."""

from __future__ import annotations


class Allowance:
    """A token bucket: it fills evenly up to a bound.

    More may be used than is there; then `wait_s` says how long the rate takes to make up for it.

    Args:
        per_s: what flows in.
        at_once: how much may be saved up; it is there from the beginning.
    """

    def __init__(self, per_s: float, at_once: float) -> None:
        self._per_s = per_s
        self._saving_s = at_once / per_s
        self._paid_until_s = float("-inf")

    def use(self, amount: float, now_s: float) -> None:
        """Take out an amount. now_s: of a monotonic clock."""
        self._paid_until_s = max(self._paid_until_s, now_s - self._saving_s) + amount / self._per_s

    def wait_s(self, now_s: float) -> float:
        """How long until something is left again; 0: something is left now."""
        return max(0.0, self._paid_until_s - now_s)
