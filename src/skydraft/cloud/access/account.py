"""What the holder of a key has used, against its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skydraft.cloud.access.keys import Holder, KeyGrant

if TYPE_CHECKING:
    from skydraft.cloud.session_registry import Seat

MINUTE_S = 60.0
REFILL_S = 6.0  # who has used its tokens up waits for a tenth of a minute's: for less it would be back at once


class Account:
    """The sessions of one key, and the tokens that it has left.

    Tokens flow in evenly, up to those of a minute; what is written is taken out, below 0 if need be. Nothing is counted
    of a key without a limit: when it is given one, it owes nothing.

    Args:
        now_s: of a monotonic clock.
    """

    def __init__(self, holder: Holder, now_s: float) -> None:
        self.name = holder.name
        self.grant = holder.grant
        self.seats: set[Seat] = set()
        self._num_left = float(holder.grant.tokens_per_minute)
        self._counted_s = now_s

    def change_grant(self, grant: KeyGrant, now_s: float) -> None:
        """The file of keys was read again. With another limit of tokens, a minute's are there and none are owed."""
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
