"""`skydraft chat`: a conversation in the terminal, or message by message from a pipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace
from rich.table import Table
from rich.text import Text

from skydraft.cli.chat_commands import COMMANDS, completions, parse_command
from skydraft.cli.chat_history import ChatHistory
from skydraft.cli.live_text import LiveText
from skydraft.cli.results import result_of_text
from skydraft.cli.screen import Screen
from skydraft.cli.summaries import UNDRAFTED, legend, sent_so_far, turn_summary
from skydraft.cli.terminal_text import counted
from skydraft.cli.typed_lines import TypedLines, TypedText
from skydraft.client import Client
from skydraft.config import DeviceSettings, with_flags
from skydraft.core import Mode, TextPiece
from skydraft.edge.ready_device import require_language_models
from skydraft.edge.report import Report
from skydraft.errors import ConfigError, SkydraftError

MODES: Mapping[Mode, str] = {
    Mode.HYBRID: "this device drafts, the cloud judges",
    Mode.EDGE: "this device writes alone, and nothing leaves it",
    Mode.CLOUD: "the cloud writes alone",
    Mode.AUTO: "whoever serves the objective best writes",
}


def run_chat(settings: DeviceSettings, system: str | None) -> None:
    """Converse until the input ends.

    Raises:
        SkydraftError: the models cannot be loaded; where messages are piped, also what makes an answer fail.
    """
    require_language_models(settings)
    screen, lines = Screen(), TypedLines(completions)
    with ExitStack() as stack:
        with screen.busy(f"Loading {settings.draft} ..."):
            client = stack.enter_context(Client(replace(settings, num_slots=1), warn=screen.warn))
        client.device.keep_connection()
        Chat(client, screen, lines, ChatHistory(system)).converse()


class Chat:
    """One conversation.

    Args:
        client: with its models loaded.
        lines: what the user types.
    """

    def __init__(self, client: Client, screen: Screen, lines: TypedLines, history: ChatHistory) -> None:
        self.history = history
        self.settings = client.settings
        self._client = client
        self._screen = screen
        self._lines = lines
        self._why_undrafted: str | None = None  # as it was told
        self._commands: Mapping[str, Callable[[str], None]] = {
            "help": self._help,
            "mode": self._mode,
            "share": self._share,
            "retry": self._retry,
            "undo": self._undo,
            "clear": self._clear,
            "save": self._save,
            "load": self._load,
        }

    def converse(self) -> None:
        """Answer message by message.

        Raises:
            SkydraftError: an answer or a command failed; not at a terminal, where it is said and the chat goes on.
        """
        self._greet()
        while True:
            try:
                self._next_line()
                typed = self._lines.read()
                if typed is None or not self._take(typed):
                    break
            except KeyboardInterrupt:
                if not self._lines.is_terminal:
                    raise
                self._next_line()
                self._say("Ctrl-D ends the chat.")
            except SkydraftError as error:
                if not self._lines.is_terminal:
                    raise
                self._screen.error(str(error))
        self._next_line()

    def _take(self, typed: TypedText) -> bool:
        """Do what was typed; returns whether the chat goes on."""
        command = None if typed.is_quoted else parse_command(typed.text)
        if command is None:
            self._ask(typed.text if typed.is_quoted else typed.text.removeprefix("/"))
        elif command.name == "quit":
            return False
        else:
            self._commands[command.name](command.argument)
        return True

    def _ask(self, text: str) -> None:
        """Have a message answered; what is written of the answer stays, whatever ends it."""
        self.history.ask(text)
        written: list[str] = []
        try:
            with self._lines.silenced(), LiveText(self._screen) as live, ExitStack() as waiting:
                waiting.enter_context(self._screen.busy("..."))

                def show(pieces: Sequence[TextPiece]) -> None:
                    waiting.close()
                    written.extend(piece.text for piece in pieces)
                    live.add(pieces)

                report = self._client.write(self.history.for_model, self.settings, show)
        except KeyboardInterrupt:
            if not self._lines.is_terminal:
                raise
            self._say("Stopped." if written else "Stopped, and the message is taken back.")
        else:
            self._tell(report)
        finally:
            self.history.answer("".join(written))

    def _tell(self, report: Report) -> None:
        result = result_of_text(report)
        self._say(f"{turn_summary(result, self.settings.max_tokens)}.")
        why = UNDRAFTED[result.undrafted] if result.undrafted else None
        if why and why != self._why_undrafted:
            self._say(f"{why[0].upper()}{why[1:]}.")
        self._why_undrafted = why

    def _greet(self) -> None:
        settings = self.settings
        cloud = f" and the cloud at {settings.cloud}" if settings.cloud else ""
        self._say(f"{settings.draft}{cloud}; mode {settings.mode}: {MODES[settings.mode]}.")
        if not self._client.device.has_chat_format:
            self._say("This model has no chat format: what you write is continued.")
        if self._lines.is_terminal:
            self._screen.err.print(legend())
        self._say("/help lists commands, Ctrl-C stops an answer, Ctrl-D ends.")

    def _say(self, sentence: str) -> None:
        """Something about the chat, for who types; it is no part of what is piped."""
        if self._lines.is_terminal:
            self._screen.note(sentence)

    def _next_line(self) -> None:
        if self._lines.is_terminal:
            self._screen.err.print()

    # Commands

    def _help(self, _: str) -> None:
        table = Table.grid(padding=(0, 2, 0, 0))
        for name, usage in COMMANDS.items():
            values = f" ({', '.join(usage.values)})" if usage.values else ""
            table.add_row(Text(f"/{name} {usage.argument}".rstrip(), "bold"), f"{usage.help}{values}")
        table.add_row(Text('"""', "bold"), "Begins and ends a message of several lines.")
        self._screen.err.print(table)

    def _mode(self, value: str) -> None:
        if value:
            mode, device = Mode(value), self._client.device
            if mode is not Mode.EDGE and not self.settings.cloud:
                raise ConfigError(f"/mode {value} needs a cloud and there is none: begin the chat without --mode edge")
            if mode is not Mode.CLOUD and not device.has_draft:
                raise ConfigError(
                    f"/mode {value} needs a draft model and none is loaded: begin the chat without --mode cloud"
                )
            self.settings = with_flags(self.settings, mode=value)
        self._say(f"mode {self.settings.mode}: {MODES[self.settings.mode]}.")

    def _share(self, value: str) -> None:
        if value:
            self.settings = with_flags(self.settings, share=value)
        self._say(f"share {self.settings.share}. {sent_so_far(self._client.device.disclosed)}")

    def _retry(self, _: str) -> None:
        before = list(self.history.messages)
        question = self.history.undo()
        if question is None:
            raise ConfigError("/retry has nothing to answer again: type a message")
        num_left = len(self.history.messages)
        try:
            self._ask(question)
        finally:
            if len(self.history.messages) == num_left:  # nothing was written: the answer of before stays
                self.history.messages = before

    def _undo(self, _: str) -> None:
        question = self.history.undo()
        if question is None:
            raise ConfigError("/undo has nothing to take back: nothing was said")
        self._say(f"Taken back: {question}")

    def _clear(self, _: str) -> None:
        self.history.clear()
        self._say("Forgotten.")

    def _save(self, file: str) -> None:
        self.history.save(Path(file).expanduser())
        self._say(f"{counted(len(self.history.messages), 'message')} saved in {file}.")

    def _load(self, file: str) -> None:
        self.history.load(Path(file).expanduser())
        self._say(f"The chat goes on after {counted(len(self.history.messages), 'message')}.")
