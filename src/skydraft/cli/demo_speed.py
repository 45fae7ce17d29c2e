"""The first act of the demo: one text by the cloud alone and by device and cloud together, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from msgspec.structs import replace
from rich.live import Live
from rich.table import Table
from rich.text import Text

from skydraft.cli.screen import Screen
from skydraft.cli.summaries import STYLES, UNDRAFTED
from skydraft.cli.terminal_text import counted, safe_text
from skydraft.config import DeviceSettings
from skydraft.core import Finish, Mode, TextPiece, tokens_of
from skydraft.edge.device import Device
from skydraft.edge.report import Report

PROMPT = "Once upon a time,"
NUM_TOKENS = 52  # with both acts the screen is full
CUT = " ..."
WARM_UP_TOKENS = 8
PICTURES_A_SECOND = 20
COLUMN_WIDTH = 39
FASTER = 1.05  # by less nobody would notice


class Runner:
    """A text under way, as a column shows it."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.text = Text()
        self.report: Report | None = None
        self._num_tokens = 0

    def add(self, pieces: Sequence[TextPiece]) -> None:
        for piece in pieces:
            origin = piece.tokens[-1].origin if piece.tokens else None
            self.text.append(safe_text(piece.text), STYLES[origin] if origin else "")
        self._num_tokens += len(tokens_of(pieces))

    @property
    def heading(self) -> Text:
        if self.report is None:
            return Text.assemble((self.title, "bold"), f"  {counted(self._num_tokens, 'token')}")
        pace = len(self.report.tokens) / self.report.total_s
        return Text.assemble((self.title, "bold"), f"  {self.report.total_s:.1f} s, {pace:.0f} tokens/s")

    @property
    def end(self) -> str:
        """What shows that the story would go on."""
        return CUT if self.report is not None and self.report.finish is Finish.LENGTH else ""


async def speed_act(device: Device, clouds: Sequence[str], screen: Screen) -> None:
    """Write a story twice at the same time.

    Args:
        clouds: addresses of two alike, so that neither text waits for the other.
    """
    base = replace(device.settings, max_tokens=NUM_TOKENS)
    alone, together = Runner("the cloud alone"), Runner("skydraft")
    ways = [
        (alone, replace(base, mode=Mode.CLOUD, cloud=clouds[0])),
        (together, replace(base, mode=Mode.HYBRID, cloud=clouds[1])),
    ]
    with screen.busy("Warming up ..."):
        await asyncio.gather(*(device.generate(PROMPT, settings=_short(settings)) for _, settings in ways))
    with _drawn(screen, alone, together):
        reports = await asyncio.gather(*(_write(device, runner, settings) for runner, settings in ways))
    screen.show(_picture(alone, together))
    screen.show(Text(verdict(*reports), "bold"))


async def _write(device: Device, runner: Runner, settings: DeviceSettings) -> Report:
    runner.report = await device.generate(PROMPT, runner.add, settings=settings)
    return runner.report


def verdict(alone: Report, together: Report) -> str:
    """Say how much faster the text came, and whether it is the same."""
    ratio = alone.total_s / together.total_s
    is_same = [token.token_id for token in alone.tokens] == [token.token_id for token in together.tokens]
    same = "the same text" if is_same else "NOT the same text"
    if ratio >= FASTER:
        return f"{ratio:.1f} x as fast, {same}."
    why = f": {UNDRAFTED[together.undrafted]}" if together.undrafted else ""
    return f"{'As fast' if ratio > 1 / FASTER else 'Slower'} ({together.total_s:.1f} s), {same}{why}."


def _short(settings: DeviceSettings) -> DeviceSettings:
    return replace(settings, max_tokens=WARM_UP_TOKENS)


def _drawn(screen: Screen, *runners: Runner) -> AbstractContextManager[object]:
    """Draws the columns again and again, on a terminal only; at last they are erased."""
    if not screen.is_live:
        return nullcontext()
    return Live(
        get_renderable=lambda: _picture(*runners),
        console=screen.out,
        refresh_per_second=PICTURES_A_SECOND,
        transient=True,
    )


def _picture(*runners: Runner) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    for _ in runners:
        table.add_column(width=COLUMN_WIDTH, vertical="top")
    table.add_row(*(runner.heading for runner in runners))
    table.add_row(*(Text.assemble((PROMPT, "dim"), runner.text, runner.end) for runner in runners))
    return table
