"""A terminal of 80 columns and 24 lines that keeps what it shows."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import termios
from collections.abc import Sequence

import pyte
from pyte.screens import Char
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 80, 24


class RecordedTerminal:
    """Runs a command to its end.

    Attributes:
        num_scrolled: lines that are no longer shown.
    """

    def __init__(self) -> None:
        self._screen = pyte.HistoryScreen(COLUMNS, LINES, history=1000)
        self._stream = pyte.ByteStream(self._screen)

    def run(self, command: Sequence[str], **variables: str) -> int:
        """Returns its exit status. variables: of its environment, beside those of this process."""
        number, inside = os.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": ""} | variables
        with subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, env=environment, start_new_session=True
        ) as process:
            os.close(inside)
            while data := _read(number):
                self._stream.feed(data)
            os.close(number)
        return process.returncode

    @property
    def num_scrolled(self) -> int:
        return len(self._screen.history.top)

    @property
    def text(self) -> str:
        """What it shows."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def lines(self) -> list[Text]:
        """The same, with colours."""
        shown = []
        for row in range(len(self.text.splitlines())):
            line = Text()
            for column in range(COLUMNS):
                sign = self._screen.buffer[row][column]
                line.append(sign.data, _style_of(sign))
            line.rstrip()
            shown.append(line)
        return shown


def _read(number: int) -> bytes:
    try:
        return os.read(number, 2**16)
    except OSError:  # the process has ended
        return b""


def _style_of(sign: Char) -> Style:
    colour = f"#{sign.fg}" if re.fullmatch("[0-9a-f]{6}", sign.fg) else None  # others have names, and are not used
    return Style(color=colour, bold=sign.bold, underline=sign.underscore)
