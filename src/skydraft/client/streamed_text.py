"""A text as it comes, for `async for`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from skydraft.core import TextPiece
from skydraft.edge.job import OnText

_Result = TypeVar("_Result")


class AsyncStreamedText(Generic[_Result]):
    """The pieces of a text while it is written, and then what is known of the whole.

    Usable as `async for piece in stream`, and as `async with client.stream(...) as stream`, which ends the text with
    the block: its slots are free then, on the device and in the cloud. A text whose stream nobody reads is written to
    its end all the same.

    Args:
        write: writes the text; told where to put its pieces.
    """

    def __init__(self, write: Callable[[OnText], Coroutine[Any, Any, _Result]]) -> None:
        self._pieces: asyncio.Queue[TextPiece | None] = asyncio.Queue()
        self._writing = asyncio.create_task(write(self._put))
        self._writing.add_done_callback(lambda _: self._pieces.put_nowait(None))

    def __aiter__(self) -> AsyncIterator[TextPiece]:
        return self

    async def __anext__(self) -> TextPiece:
        piece = await self._pieces.get()
        if piece is not None:
            return piece
        self._pieces.put_nowait(None)  # for whoever asks again
        self._writing.result()
        raise StopAsyncIteration

    async def __aenter__(self) -> AsyncStreamedText[_Result]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def result(self) -> _Result:
        """What is known of the whole text, when it has ended.

        Raises:
            SkydraftError: as `AsyncClient.generate`.
        """
        return await asyncio.shield(self._writing)

    async def aclose(self) -> None:
        """End the text here."""
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)

    def _put(self, pieces: Sequence[TextPiece]) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)
