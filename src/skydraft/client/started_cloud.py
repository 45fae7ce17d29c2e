"""A cloud that a program starts on this machine for the occasion."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType

from skydraft.client.event_loop import EventLoop
from skydraft.edge.local_cloud import local_cloud


class Cloud:
    """Runs `skydraft cloud` for as long as the context lasts, which gives its address:

        with Cloud("LARGE") as address, Client(draft="SMALL", cloud=address) as client:
            ...

    For `async with` too.

    Args:
        model: what it serves.
        arguments: further ones of its command line, such as "--slots", "16".
    Raises, on entering:
        TransportError: it did not start; with its own last words.
    """

    def __init__(self, model: str, *arguments: str) -> None:
        self._model = model
        self._arguments = arguments
        self._loop: EventLoop | None = None
        self._running: AbstractAsyncContextManager[str] | None = None

    async def __aenter__(self) -> str:
        self._running = local_cloud(self._model, *self._arguments)
        return await self._running.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._running is not None
        await self._running.__aexit__(None, None, None)

    def __enter__(self) -> str:
        self._loop = EventLoop()
        try:
            return self._loop.run(self.__aenter__())
        except BaseException:
            self._loop.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        try:
            self._loop.run(self.__aexit__(None, None, None))
        finally:
            self._loop.close()
