"""The texts of one request: several choices are written at the same time, with seeds that follow each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from skydraft.config import DeviceSettings
from skydraft.core import TextPiece
from skydraft.edge.device import draw_seed
from skydraft.edge.job import OnText
from skydraft.edge.report import Report
from skydraft.edge.text_pace import TextPace

Write: TypeAlias = Callable[[DeviceSettings, OnText, TextPace], Awaitable[Report]]
WriteCharged: TypeAlias = Callable[[DeviceSettings, OnText], Awaitable[Report]]  # at its key's pace and cost
MakeReady: TypeAlias = Callable[[DeviceSettings], Awaitable[Write]]  # what there is to do once for all texts


class Growth(NamedTuple):
    """A text has grown, or, with a report, ended. number: of the text among those of its request, from 0."""

    number: int
    piece: TextPiece | None = None
    report: Report | None = None


def seeded(settings: DeviceSettings, count: int) -> list[DeviceSettings]:
    """Settings of several choices: those of the first are as if it were alone."""
    if count == 1 or not settings.temperature:
        return [settings] * count
    seed = draw_seed() if settings.seed is None else settings.seed
    return [replace(settings, seed=(seed + index) % 2**64) for index in range(count)]


async def write_all(write: WriteCharged, settings: Sequence[DeviceSettings]) -> list[Report]:
    """The reports of all texts, written at the same time; where one fails the others end."""
    reports: dict[int, Report] = {}
    async for growth in grow(write, settings):
        if growth.report is not None:
            reports[growth.number] = growth.report
    return [reports[number] for number in range(len(settings))]


async def grow(write: WriteCharged, settings: Sequence[DeviceSettings]) -> AsyncGenerator[Growth, None]:
    """All texts, as they come. They end with the iteration."""
    news: asyncio.Queue[Growth | None] = asyncio.Queue()

    async def follow(number: int, of_text: DeviceSettings) -> None:
        def put(pieces: Sequence[TextPiece]) -> None:
            for piece in pieces:
                news.put_nowait(Growth(number, piece))

        try:
            news.put_nowait(Growth(number, report=await write(of_text, put)))
        finally:
            news.put_nowait(None)

    texts = [asyncio.create_task(follow(number, of_text)) for number, of_text in enumerate(settings)]
    try:
        num_left = len(texts)
        while num_left:
            growth = await news.get()
            if growth is not None:
                yield growth
                continue
            num_left -= 1
            for text in texts:
                if text.done():
                    text.result()
    finally:
        for text in texts:
            text.cancel()
        await asyncio.gather(*texts, return_exceptions=True)
