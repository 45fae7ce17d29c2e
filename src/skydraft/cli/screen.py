"""The output of a command: results to standard output, everything else to standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment, Segments
from rich.text import Text

from skydraft.cli.exit_status import print_error
from skydraft.cli.results import JsonObject, to_line
from skydraft.cli.terminal_text import safe_line, safe_text


class _Console(Console):
    """Raises BrokenPipeError when the output is closed, where rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that it is called for


class Screen:
    """The two streams of the process.

    Args:
        out: for results; tests pass their own.
        err: for notes and progress.
    """

    def __init__(self, out: Console | None = None, err: Console | None = None) -> None:
        self.out = out or _Console(highlight=False)
        self.err = err or _Console(stderr=True, highlight=False)
        self._is_line_open = False

    @property
    def is_live(self) -> bool:
        """Whether results appear on a terminal."""
        return self.out.is_terminal

    def text(self, text: str) -> None:
        """Print a result without colours or added line breaks."""
        self._line(safe_text(text))

    def append(self, *parts: tuple[str, str]) -> None:
        """Append to a growing result: texts and their styles; `end_line` ends it."""
        segments = [Segment(text, self.out.get_style(style)) for text, style in parts if text]
        self.out.print(Segments(segments), soft_wrap=True)
        self._is_line_open = True

    def end_line(self) -> None:
        """End the growing result: it is whole, or something else is to be printed."""
        if self._is_line_open:
            self.append(("\n", ""))
            self._is_line_open = False

    def whole(self, text: str) -> None:
        """Print a result of whole lines as it is."""
        # Not through the console, which wraps lines and interprets markup.
        self.out.file.write(text)
        self.out.file.flush()

    def json(self, json_object: JsonObject) -> None:
        """Print a result for a program."""
        self._line(to_line(json_object))

    def show(self, renderable: RenderableType = "") -> None:
        """Print a table, or a text with styles."""
        self._print(self.out, renderable)

    def note(self, sentence: str) -> None:
        """Print additional information for the user."""
        self._say(sentence, "dim")

    def warn(self, sentence: str) -> None:
        """Print a warning."""
        self._say(f"Note: {sentence}", "bold")

    def error(self, sentence: str) -> None:
        print_error(sentence)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Show what is in progress, on a terminal only."""
        with self.err.status(Text(safe_line(what), style="dim")) if self.err.is_terminal else nullcontext():
            yield

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar for a batch, unless its results appear on the same terminal.

        Yields:
            A function to call with the number of finished items.
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
        text = Text(safe_line(sentence), style=style)
        if self.err.is_terminal:
            self._print(self.err, text)
        else:
            self.err.print(text, soft_wrap=True)

    def _print(self, console: Console, renderable: RenderableType) -> None:
        """Without the spaces with which rich fills lines: who copies them from a terminal would have them too."""
        for line in console.render_lines(renderable, pad=False):
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                text, style, _ = line.pop()
                line.append(Segment(text.rstrip(), style))
            console.print(Segments([*line, Segment.line()]), soft_wrap=True, end="")

    def _line(self, line: str) -> None:
        self.whole(line + "\n")
