"""Where output goes: results to standard output, everything else to standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment, Segments
from rich.text import Text

from skydraft.cli.exit_status import print_error
from skydraft.cli.results import JsonObject, to_line
from skydraft.cli.terminal_text import safe_line, safe_text


class _Console(Console):
    """Leaves it to the command what to do where nobody reads any more; rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that it is called for


class Screen:
    """The two streams of the process.

    Args:
        out: where results go; made up in tests and for the picture of the README.
        err: where notes and progress go.
    """

    def __init__(self, out: Console | None = None, err: Console | None = None) -> None:
        self.out = out or _Console(highlight=False)
        self.err = err or _Console(stderr=True, highlight=False)
        self._is_line_open = False

    @property
    def is_live(self) -> bool:
        """Whether a person watches the results come."""
        return self.out.is_terminal

    def text(self, text: str) -> None:
        """A result, as it is: no colours, no line breaks but its own."""
        self._line(safe_text(text))

    def append(self, *parts: tuple[str, str]) -> None:
        """More of a result that grows, as texts and their styles; `end_line` ends it."""
        segments = [Segment(text, self.out.get_style(style)) for text, style in parts if text]
        self.out.print(Segments(segments), soft_wrap=True)
        self._is_line_open = True

    def end_line(self) -> None:
        """The result that grows is whole, or something else must be said."""
        if self._is_line_open:
            self.append(("\n", ""))
            self._is_line_open = False

    def json(self, json_object: JsonObject) -> None:
        """A result for a program."""
        self._line(to_line(json_object))

    def note(self, sentence: str) -> None:
        """What a person should know and a program need not."""
        self._say(sentence, "dim")

    def warn(self, sentence: str) -> None:
        """What may surprise."""
        self._say(f"Note: {sentence}", "bold")

    def error(self, sentence: str) -> None:
        print_error(sentence)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Say what takes so long, for as long as it does; on a terminal only."""
        with self.err.status(Text(safe_line(what), style="dim")) if self.err.is_terminal else nullcontext():
            yield

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar for a batch whose results go elsewhere; where they are on the screen they are the progress.

        Yields:
            What to tell how many are done.
        """
        if total < 2 or not self.err.is_terminal or self.is_live:
            yield lambda _: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.err, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda num_done: progress.update(task, completed=num_done)

    def _say(self, sentence: str, style: str) -> None:
        if self.is_live and self.err.is_terminal:
            self.end_line()
        self.err.print(Text(safe_line(sentence), style=style), soft_wrap=not self.err.is_terminal)

    def _line(self, line: str) -> None:
        # Not through the console, which wraps lines and reads markup in them.
        self.out.file.write(line + "\n")
        self.out.file.flush()
