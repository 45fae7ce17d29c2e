"""A command at a terminal: what it prints is read, and keys are typed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import termios
from collections.abc import Iterator

from tests.system.processes import Process, started
from tests.waiting import PATIENCE_S

CTRL_C, CTRL_D = "\x03", "\x04"
ERASED_LINE = re.compile(r"[^\n]*\r(\n\x1b\[\?25h\r\x1b\[1A)?\x1b\[2K")
ESCAPE_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Of 80 columns and 24 lines.

    Attributes:
        shown: all that was printed, with the codes of colours and cursor.
    """

    def __init__(self, process: Process, number: int) -> None:
        self.process = process
        self.shown = ""
        self._number = number
        self._unseen = ""

    def until(self, words: str) -> str:
        """Wait until something is printed; returns all since what was waited for last, without codes."""
        while words not in (text := _as_seen(self._unseen)):
            assert self._read(), f"{words!r} never came:\n{text}"
        seen, _, self._unseen = text.partition(words)
        return seen + words

    def rest(self) -> str:
        """The same, to its end."""
        while self._read():
            pass
        return _as_seen(self._unseen)

    def type(self, keys: str) -> None:
        os.write(self._number, keys.encode())

    def _read(self) -> str:
        assert select.select([self._number], [], [], PATIENCE_S)[0], f"nothing came:\n{self.shown}"
        try:
            data = os.read(self._number, 2**16).decode()
        except OSError:  # the process has ended
            return ""
        self.shown += data
        self._unseen += data
        return data


def _in_the_foreground() -> None:
    """As a shell starts a command: its terminal is its own, and Ctrl-C not ignored, as it is in jobs behind an `&`."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _as_seen(text: str) -> str:
    """Without lines that were erased again, and codes."""
    return ESCAPE_CODE.sub("", ERASED_LINE.sub("", text)).replace("\r\n", "\n")


@contextlib.contextmanager
def at_terminal(*arguments: object, **options: object) -> Iterator[Terminal]:
    """A command whose three streams are a terminal, which is its own: Ctrl-C typed there reaches it."""
    number, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    streams = {"stdin": inside, "stdout": inside, "stderr": inside} | options
    with started(
        *arguments,
        **streams,
        start_new_session=True,
        preexec_fn=_in_the_foreground,
        env=os.environ | {"TERM": "xterm-256color"},
    ) as process:
        os.close(inside)
        try:
            yield Terminal(process, number)
        finally:
            os.close(number)
