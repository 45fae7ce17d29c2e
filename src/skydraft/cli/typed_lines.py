"""What a user types, line by line: at a terminal with editing, or from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from skydraft.errors import ConfigError

try:
    import readline
    import termios
except ImportError:  # Windows, whose console edits lines by itself
    readline = termios = None  # type: ignore[assignment]

PROMPT = "> "
MORE = ". "
QUOTES = '"""'  # around a message of several lines

Complete = Callable[[str], Sequence[str]]  # the line so far -> what its last word may become


class TypedText(NamedTuple):
    """is_quoted: it stood between quotes, and is a message whatever it begins with."""

    text: str
    is_quoted: bool


class TypedLines:
    """Messages from standard input.

    At a terminal a prompt stands before each; lines can be edited and earlier ones called back where the system has
    readline, as far as its user has typed them in this process. Between lines with three quotes a message has several.

    Args:
        complete: what the tab key may make of a line.
    """

    def __init__(self, complete: Complete) -> None:
        self.is_terminal = sys.stdin.isatty()
        self._is_edited = self.is_terminal and sys.stdout.isatty()
        if self._is_edited:
            _edit_lines(complete)

    def read(self) -> TypedText | None:
        """The next one, which is not blank; None: there is none.

        Raises:
            ConfigError: it is not UTF-8.
            KeyboardInterrupt: Ctrl-C.
        """
        while (line := self._line(PROMPT)) is not None:
            is_quoted = line.lstrip().startswith(QUOTES)
            text = self._quoted(line) if is_quoted else line
            if text.strip():
                return TypedText(text.strip(), is_quoted)
        return None

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """What is typed meanwhile, Ctrl-C too, is not printed into what is written there."""
        if not self.is_terminal or termios is None:
            yield
            return
        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
        silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
        termios.tcsetattr(number, termios.TCSANOW, silent)
        try:
            yield
        finally:
            termios.tcsetattr(number, termios.TCSANOW, before)

    def _quoted(self, line: str) -> str:
        """All up to the next three quotes."""
        lines = [line.lstrip().removeprefix(QUOTES)]
        while not lines[-1].rstrip().endswith(QUOTES) and (more := self._line(MORE)) is not None:
            lines.append(more)
        return "\n".join(lines).rstrip().removesuffix(QUOTES)

    def _line(self, prompt: str) -> str | None:
        try:
            line = input(prompt) if self._is_edited else _plain_line(prompt if self.is_terminal else "")
            line.encode()  # where the locale is C, bytes that are no text came through
        except EOFError:
            return None
        except UnicodeError as error:
            raise ConfigError(f"a line of standard input is not UTF-8 text ({error}): give a text") from None
        return line


def _plain_line(prompt: str) -> str:
    """Raises: EOFError: there is none."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


def _edit_lines(complete: Complete) -> None:
    if readline is None:
        return
    found: list[str] = []

    def next_match(word: str, index: int) -> str | None:
        if index == 0:
            found[:] = complete(readline.get_line_buffer())
        return found[index] if index < len(found) else None

    readline.set_completer_delims(" ")
    readline.set_completer(next_match)
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
