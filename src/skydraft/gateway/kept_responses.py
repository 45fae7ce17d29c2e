"""Responses that apps may come back to: kept in memory, for a time, and for the key that made them alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from skydraft.cloud.access.keys import Holder

JsonFields = dict[str, Any]

MAX_KEPT, MAX_KEPT_BYTES = 256, 2**24  # of one key; the oldest make place
KEPT_S = 86400.0


class KeptResponse(NamedTuple):
    """A response, and what a conversation that goes on from it begins with, as JSON.

    made_s: on a monotonic clock.
    """

    response: bytes
    items: bytes
    made_s: float

    @property
    def num_bytes(self) -> int:
        return len(self.response) + len(self.items)

    @property
    def conversation(self) -> list[JsonFields]:
        return msgspec.json.decode(self.items, type=list[JsonFields])


class KeptResponses:
    """The responses of all keys. A key that was made anew under an old name is another."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, str], dict[str, KeptResponse]] = {}  # the oldest first

    def keep(self, holder: Holder, response: JsonFields, items: Sequence[JsonFields], now_s: float) -> bool:
        """Keep a response, unless it is larger than all of a key's together may be; returns whether it is kept.

        Args:
            holder: of the key that made it.
            items: of its conversation, its own output included.
        """
        kept = KeptResponse(msgspec.json.encode(response), msgspec.json.encode(items), now_s)
        if kept.num_bytes > MAX_KEPT_BYTES:
            return False
        of_key = self._by_key.setdefault(_key(holder), {})
        of_key[response["id"]] = kept
        num_bytes = sum(each.num_bytes for each in of_key.values())
        while len(of_key) > MAX_KEPT or num_bytes > MAX_KEPT_BYTES:
            num_bytes -= of_key.pop(next(iter(of_key))).num_bytes
        return True

    def find(self, holder: Holder, response_id: str, now_s: float) -> KeptResponse | None:
        """None: this key has none of this id, or not any more."""
        self.forget_old(now_s)
        return self._by_key.get(_key(holder), {}).get(response_id)

    def forget(self, holder: Holder, response_id: str, now_s: float) -> bool:
        """Returns whether there was one."""
        self.forget_old(now_s)
        return self._by_key.get(_key(holder), {}).pop(response_id, None) is not None

    def forget_old(self, now_s: float) -> None:
        """Forget those of all keys that are too old."""
        for key, of_key in list(self._by_key.items()):
            for response_id in list(of_key):  # the oldest first
                if now_s - of_key[response_id].made_s <= KEPT_S:
                    break
                del of_key[response_id]
            if not of_key:
                del self._by_key[key]


def _key(holder: Holder) -> tuple[str, str]:
    return holder.name, holder.sha256
