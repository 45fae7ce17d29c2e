"""A text printed while its tokens arrive: appended, never redrawn; on a terminal coloured by origin."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.cells import cell_len

from skydraft.audio.windows import Window
from skydraft.cli.screen import Screen
from skydraft.cli.summaries import STYLES
from skydraft.cli.terminal_text import safe_text
from skydraft.core import Origin, TextPiece
from skydraft.edge.report import BETWEEN_WINDOWS
from skydraft.tasks.caption import NO_SPEECH
from skydraft.tasks.cues import time_span

WORD_WIDTH = 12  # columns reserved for the rest of a word, whose tokens arrive one by one


class LiveText:
    """One text that is printed to standard output, with a line break at its end even if it is interrupted.

    Args:
        heading: printed before the text, in the same line.
        indent: columns to the left of the text, whose lines are then broken here; 0: the terminal breaks them.
        is_timed: each window of a clip is a line of its own, which begins with the heading and the window's times.
    """

    def __init__(self, screen: Screen, heading: str = "", indent: int = 0, is_timed: bool = False) -> None:
        self._screen = screen
        self._heading = self._name = heading
        self._is_timed = is_timed
        self._indent = indent
        self._column = 0
        self._last = ""
        self._origin = Origin.EDGE

    def __enter__(self) -> LiveText:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BrokenPipeError):
            return
        if error is None and not self._last:  # an empty text is an empty line
            self._begin()
        self._screen.end_line()

    def add(self, pieces: Sequence[TextPiece]) -> None:
        """Print more of the text."""
        for piece in pieces:
            for token in piece.tokens:
                self._origin = token.origin
            self._write(piece.text)

    def next_window(self, window: Window) -> None:
        """Begin the text of the next window of a clip; of one without speech, which no model writes, print it."""
        self._origin = Origin.EDGE  # also of a text without tokens, which the device knew by itself
        if self._is_timed:
            self._screen.end_line()
            self._last = ""
            self._heading = f"{self._name}{time_span(window.start_s, window.end_s)} "
        elif self._last:
            self._write(BETWEEN_WINDOWS)
        if not window.has_speech:
            self._write(NO_SPEECH)

    def _write(self, text: str) -> None:
        text = safe_text(text, before=self._last)
        if not text:
            return
        if not self._last:
            self._begin()
        self._last = text[-1]
        text = self._broken(text) if self._indent else text
        word = text.strip()
        left, _, right = text.partition(word) if word else (text, "", "")
        self._screen.append((left, ""), (word, STYLES[self._origin]), (right, ""))  # no underlined spaces

    def _begin(self) -> None:
        before = " " * self._indent + self._heading
        self._screen.append((before, ""))
        self._column = cell_len(before)

    def _broken(self, text: str) -> str:
        """Add line breaks and the margin."""
        margin = "\n" + " " * self._indent
        if text.startswith(" ") and self._column + cell_len(text) + WORD_WIDTH > self._screen.out.width:
            text = "\n" + text.removeprefix(" ")
        text = text.replace("\n", margin)
        line = text.rpartition("\n")[2]
        self._column = cell_len(line) + (0 if "\n" in text else self._column)
        return text
