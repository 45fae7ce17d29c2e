"""A text as it grows on a terminal, coloured by origin."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from skydraft.cli.render import coloured
from skydraft.cli.results import Piece, Result
from skydraft.core import Token
from skydraft.engines.tokenizer import TextStream, Tokenizer

DRAWING_SHARE = 0.2  # of the time, at most: drawing a long text takes long, and the device listens meanwhile


class LiveText:
    """Shows tokens as they come, and the whole text once it is there. Nothing but the latter where nobody watches.

    Args:
        indent: columns to the left of the text.
    """

    def __init__(self, console: Console, tokenizer: Tokenizer, indent: int = 0) -> None:
        self._console = console
        self._stream = TextStream(tokenizer)
        self._indent = indent
        self._pieces: list[Piece] = []
        self._draw_from_s = 0.0
        self._live = (
            Live(console=console, auto_refresh=False, vertical_overflow="crop") if console.is_terminal else None
        )

    def __enter__(self) -> LiveText:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, tokens: Sequence[Token]) -> None:
        """More of the text."""
        if self._live is None:
            return
        self._pieces += [Piece(item.token_id, self._stream.feed((item.token_id,)), item.origin) for item in tokens]
        began_s = time.monotonic()
        if began_s >= self._draw_from_s:
            self._live.update(self._framed(coloured(self._pieces)), refresh=True)
            ended_s = time.monotonic()
            self._draw_from_s = ended_s + (ended_s - began_s) * (1 / DRAWING_SHARE - 1)

    def finish(self, result: Result) -> None:
        """The whole text."""
        whole = self._framed(coloured(result.pieces))
        if self._live is None:
            self._console.print(whole)
        else:
            self._live.update(whole, refresh=True)

    def _framed(self, text: Text) -> RenderableType:
        return Padding(text, (0, 0, 0, self._indent))
