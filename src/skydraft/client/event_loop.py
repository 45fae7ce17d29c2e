"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class EventLoop:
    """Runs coroutines for callers in other threads, as many at once as there are callers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="skydraft-client")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Wait for a coroutine; where the caller is interrupted it is cancelled, and has ended when this returns."""
        begun: list[asyncio.Task[Any]] = []

        async def begin() -> _Result:
            task = asyncio.current_task()
            assert task is not None
            begun.append(task)
            return await work

        async def end() -> None:
            if begun:
                await asyncio.wait(begun)
            else:
                work.close()

        future = asyncio.run_coroutine_threadsafe(begin(), self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                asyncio.run_coroutine_threadsafe(end(), self._loop).result()
            raise

    def close(self) -> None:
        """End the loop; nothing may be under way."""
        if not self._loop.is_running():
            return
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
