"""Responses that apps may come back to: kept in memory, for a time, and for the key that made them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

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
    """The responses of all keys; what a name of a key stands for is another's nothing."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[str, KeptResponse]] = {}  # the oldest first

    def keep(self, key: str, response: Mapping[str, Any], items: Sequence[Mapping[str, Any]], now_s: float) -> bool:
        """Keep a response, unless it is larger than all of a key's together may be; returns whether it is kept.

        Args:
            key: the name of the key that made it.
            items: of its conversation, its own output included.
        """
        kept = KeptResponse(msgspec.json.encode(response), msgspec.json.encode(items), now_s)
        if kept.num_bytes > MAX_KEPT_BYTES:
            return False
        of_key = self._of(key, now_s)
        of_key[response["id"]] = kept
        self._by_key[key] = of_key
        num_bytes = sum(each.num_bytes for each in of_key.values())
        while len(of_key) > MAX_KEPT or num_bytes > MAX_KEPT_BYTES:
            num_bytes -= of_key.pop(next(iter(of_key))).num_bytes
        return True

    def find(self, key: str, response_id: str, now_s: float) -> KeptResponse | None:
        """None: this key has none of this id, or not any more."""
        return self._of(key, now_s).get(response_id)

    def forget(self, key: str, response_id: str, now_s: float) -> bool:
        """Returns whether there was one."""
        return self._of(key, now_s).pop(response_id, None) is not None

    def _of(self, key: str, now_s: float) -> dict[str, KeptResponse]:
        """A key's responses, without those that are too old."""
        of_key = self._by_key.get(key, {})
        for response_id in [each for each, kept in of_key.items() if now_s - kept.made_s > KEPT_S]:
            del of_key[response_id]
        return of_key
