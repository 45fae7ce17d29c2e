"""Waiting for what comes true, on however busy a machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 240.0  # so long does nothing take that works, and less than pytest's own limit


def wait_until(holds: Callable[[], object], what: str = "it") -> None:
    """Wait for something to come true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.01)


async def until(holds: Callable[[], object]) -> None:
    """The same, while the event loop goes on."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
