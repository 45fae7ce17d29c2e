from __future__ import annotations

import asyncio
import threading

import pytest

from skydraft.edge.in_thread import in_thread
from tests.waiting import PATIENCE_S


async def test_who_gives_up_waits_for_the_thread_all_the_same() -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def work() -> bool:
        has_begun.set()
        return may_end.wait(PATIENCE_S)

    working = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(has_begun.wait, PATIENCE_S)
    working.cancel()
    for _ in range(10):
        await asyncio.to_thread(int)  # turns of the loop, and of other threads
    assert not working.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_what_it_gives_and_what_it_raises_come_back() -> None:
    assert await in_thread(lambda: 3) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(lambda: int("x"))
