"""How much time each key may take for what is done before a text begins.

JSON, grammars and tokens hold up all that is written meanwhile: Python runs one thread at a time. So while other keys
are about, a key's requests are prepared one after the other, and have no more than SHARE of the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from skydraft.cloud.limits.allowance import Allowance

SHARE, SAVED_S = 0.2, 0.1  # of the time; of it, at once
ABOUT_S = 1.0  # from what was last seen of a key


@dataclass
class _Key:
    seen_s: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    time: Allowance = field(default_factory=lambda: Allowance(SHARE, SAVED_S))


class PreparationTime:
    """Of all keys, by their names.

    Args:
        present: gives those that have requests under way.
    """

    def __init__(self, present: Callable[[], Iterable[str]] = tuple) -> None:
        self._present = present
        self._keys: dict[str, _Key] = {}  # as many as there are

    def saw(self, name: str) -> None:
        """A key is about: it asks for something, or a text of it grows."""
        now_s = time.monotonic()
        self._keys.setdefault(name, _Key(now_s)).seen_s = now_s

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Time of a key that was seen, for as long as the context lasts. What it takes is not to wait for others."""
        if not self._has_company(name):
            yield
            return
        key = self._keys[name]
        async with key.lock:
            while wait_s := self._wait_s(name):  # noqa: ASYNC110  # time passes by itself
                await asyncio.sleep(min(wait_s, ABOUT_S))  # others may have gone by then
            began_s = time.monotonic()
            try:
                yield
            finally:
                ended_s = time.monotonic()
                if self._has_company(name):
                    key.time.use(ended_s - began_s, ended_s)

    def _wait_s(self, name: str) -> float:
        return self._keys[name].time.wait_s(time.monotonic()) if self._has_company(name) else 0.0

    def _has_company(self, name: str) -> bool:
        since_s = time.monotonic() - ABOUT_S
        is_seen = any(key.seen_s > since_s for other, key in self._keys.items() if other != name)
        return is_seen or any(other != name for other in self._present())
