"""Whether a text may grow at the moment, which somebody else decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class TextPace:
    """Of one text. A text that is held up keeps what it has: its slot, and its session with the cloud."""

    def __init__(self) -> None:
        self._may_grow = asyncio.Event()
        self._may_grow.set()
        self._tell: Callable[[], None] = lambda: None

    @property
    def is_held_up(self) -> bool:
        return not self._may_grow.is_set()

    def hold_up(self) -> None:
        """The text is not to grow until it is let on; what is under way still comes."""
        if not self.is_held_up:
            self._may_grow.clear()
            self._tell()

    def let_on(self) -> None:
        """The text may grow again."""
        if self.is_held_up:
            self._may_grow.set()
            self._tell()

    def follow(self, tell: Callable[[], None]) -> None:
        """From now on call this whenever it changes, in place of what was called before."""
        self._tell = tell

    async def wait(self) -> None:
        """Until the text may grow."""
        await self._may_grow.wait()
