"""Which texts are written at the same time, while several keys have some.

The models read all texts together, so a key that has many slows down the only one of another. While several keys have
texts, only so many are written in all: as many of each key, and what one leaves over goes to the others. Those that a
key began last are held up meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from skydraft.edge.text_pace import TextPace

ABOUT_S = 1.0  # from the end of its last text a key is still counted: its next one may come


class TextsUnderWay:
    """Of all keys, by their names. For the event loop's thread.

    Args:
        num_together: texts that are written at the same time, of all keys together; there is at least one of each.
    """

    def __init__(self, num_together: int) -> None:
        self._num_together = num_together
        self._texts: dict[str, dict[TextPace, None]] = {}  # in the order in which they began
        self._ended_s: dict[str, float] = {}  # of keys without a text: since when
        self._next: asyncio.TimerHandle | None = None

    @contextmanager
    def text(self, name: str) -> Iterator[TextPace]:
        """A text of this key is under way, for as long as the context lasts; its pace."""
        pace = TextPace()
        self._texts.setdefault(name, {})[pace] = None
        self._ended_s.pop(name, None)
        self._balance()
        try:
            yield pace
        finally:
            del self._texts[name][pace]
            if not self._texts[name]:
                del self._texts[name]
                self._ended_s[name] = time.monotonic()
            self._balance()

    def _balance(self) -> None:
        since_s = time.monotonic() - ABOUT_S
        self._ended_s = {name: ended_s for name, ended_s in self._ended_s.items() if ended_s > since_s}
        places = self._places()
        for name, texts in self._texts.items():
            for number, pace in enumerate(texts):
                if number < places[name]:
                    pace.let_on()
                else:
                    pace.hold_up()
        if self._next is not None:
            self._next.cancel()
        is_uneven = any(pace.is_held_up for texts in self._texts.values() for pace in texts)
        self._next = asyncio.get_running_loop().call_later(ABOUT_S, self._balance) if is_uneven else None

    def _places(self) -> Mapping[str, int]:
        """How many texts of each key are written; one is kept for a key whose next text may come."""
        wanted = {**{name: len(texts) for name, texts in self._texts.items()}, **dict.fromkeys(self._ended_s, 1)}
        if len(wanted) == 1:
            return wanted
        places, left = dict[str, int](), max(self._num_together, len(wanted))
        for name in sorted(wanted, key=wanted.__getitem__):
            places[name] = min(wanted[name], left // (len(wanted) - len(places)))
            left -= places[name]
        return places
