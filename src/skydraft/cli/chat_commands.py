"""What one may type in `skydraft chat` beside messages: lines that begin with a slash."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from skydraft.core import Mode, ShareLevel
from skydraft.errors import ConfigError

SLASH = "/"


class Usage(NamedTuple):
    """argument: what it is called in the help; empty: there is none. is_needed: it may not be left out.

    values: those that it may have; empty: any.
    """

    help: str
    argument: str = ""
    is_needed: bool = False
    values: tuple[str, ...] = ()


COMMANDS: Mapping[str, Usage] = MappingProxyType(
    {
        "help": Usage("Show this."),
        "mode": Usage("Where answers are written; without MODE, where they are now.", "MODE", values=tuple(Mode)),
        "share": Usage("What may leave this device; without LEVEL, what has left.", "LEVEL", values=tuple(ShareLevel)),
        "retry": Usage("Have the last message answered again."),
        "undo": Usage("Take the last message and its answer back."),
        "clear": Usage("Forget all that was said; a system message stays."),
        "save": Usage("Save the conversation, as JSON that OpenAI's API takes too.", "FILE", is_needed=True),
        "load": Usage("Go on with a conversation that was saved.", "FILE", is_needed=True),
        "quit": Usage("End the chat; so does Ctrl-D."),
    }
)
ALIASES: Mapping[str, str] = MappingProxyType({"?": "help", "exit": "quit", "bye": "quit"})


class TypedCommand(NamedTuple):
    """name: in COMMANDS. argument: empty where there is none."""

    name: str
    argument: str


def parse_command(line: str) -> TypedCommand | None:
    """The command of a line; None: it is a message. One that begins with a slash is typed with two.

    Raises:
        ConfigError: there is no such command, or its argument is missing, too much or wrong.
    """
    if not line.startswith(SLASH) or line.startswith(2 * SLASH):
        return None
    word, _, argument = line.removeprefix(SLASH).strip().partition(" ")
    name, argument = ALIASES.get(word, word), argument.strip()
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, 1)
        meant = f"did you mean /{nearest[0]}? " if nearest else ""
        raise ConfigError(f"there is no command /{word}: {meant}/help lists them, // begins a message with a slash")
    usage = COMMANDS[name]
    if argument and not usage.argument:
        raise ConfigError(f"/{word} takes nothing and was given {argument!r}: leave it out")
    if usage.is_needed and not argument:
        raise ConfigError(f"/{word} needs a {usage.argument}: /{word} {usage.argument}")
    if argument and usage.values and argument not in usage.values:
        raise ConfigError(f"/{word} {argument} is not known: use {', '.join(usage.values[:-1])} or {usage.values[-1]}")
    return TypedCommand(name, argument)


def completions(line: str) -> list[str]:
    """What the word at the end of a line may become: commands, and values of those that have a few."""
    command, space, argument = line.partition(" ")
    if not command.startswith(SLASH):
        return []
    if not space:
        return [SLASH + name for name in COMMANDS if name.startswith(command.removeprefix(SLASH))]
    usage = COMMANDS.get(command.removeprefix(SLASH), Usage(""))
    return [value for value in usage.values if value.startswith(argument)]
