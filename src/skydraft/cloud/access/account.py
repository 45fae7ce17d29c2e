"""The tokens that a key may still use."""

from __future__ import annotations

from skydraft.cloud.access.keys import Holder, KeyGrant

MINUTE_S = 60.0
REFILL_S = 6.0  # of waiting once the tokens are used up: less would let the device back for a token or two


class Account:
    """One tenant of a cloud: a key, what it may do, and the tokens that it has left.

    Tokens flow in evenly, up to those of a minute; written text takes tokens out, and the balance may fall below 0.
    A key without a limit has no balance: when it is given a limit, it owes nothing.

    Args:
        now_s: of a monotonic clock.
    """

    def __init__(self, holder: Holder, now_s: float) -> None:
        self.name = holder.name
        self.grant = holder.grant
        self._num_left = float(holder.grant.tokens_per_minute)
        self._counted_s = now_s

    def change_grant(self, grant: KeyGrant, now_s: float) -> None:
        """Use a newer grant. Another limit of tokens starts a new balance, with a minute's tokens and no debt."""
        if grant.tokens_per_minute != self.grant.tokens_per_minute:
            self._num_left = float(grant.tokens_per_minute)
            self._counted_s = now_s
        self.grant = grant

    def spend(self, num_tokens: int, now_s: float) -> None:
        """Some text was written."""
        if self.grant.tokens_per_minute:
            self._count(now_s)
            self._num_left -= num_tokens

    def wait_s(self, now_s: float) -> float:
        """How long to wait before more may be written; 0: not at all."""
        if not self.grant.tokens_per_minute:
            return 0.0
        self._count(now_s)
        if self._num_left > 0:
            return 0.0
        return REFILL_S - self._num_left * MINUTE_S / self.grant.tokens_per_minute

    def _count(self, now_s: float) -> None:
        per_minute = self.grant.tokens_per_minute
        came_in = (now_s - self._counted_s) * per_minute / MINUTE_S
        self._num_left = min(float(per_minute), self._num_left + came_in)
        self._counted_s = now_s
