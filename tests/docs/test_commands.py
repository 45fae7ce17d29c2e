"""Every command that the README and the pages of docs/ show is one that there is, with flags that there are."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from skydraft.cli.app import app
from tests.docs.pages import PAGES, ROOT, mentioned_commands, shown_commands

SHOWN = [(page, arguments) for page in PAGES for arguments in shown_commands(page.read_text())]


def command_of(arguments: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the first words name, and the other words."""
    command: click.Command = app
    while isinstance(command, click.Group) and arguments:
        name, *arguments = arguments
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    return command, arguments


def name_of(case: object) -> str:
    return case.name if isinstance(case, Path) else " ".join(map(str, case)) if isinstance(case, list) else str(case)


@pytest.mark.parametrize(("page", "arguments"), SHOWN, ids=name_of)
def test_a_shown_command_can_be_parsed(page: Path, arguments: list[str]) -> None:
    command, rest = command_of(arguments)
    command.make_context(str(command.name), rest)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_mentioned_command_has_the_flags_that_it_is_mentioned_with(page: Path) -> None:
    for arguments in mentioned_commands(page.read_text()):
        command, rest = command_of(arguments)
        flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"--help"}
        assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= flags, arguments


def test_the_readme_shows_the_commands_that_a_user_meets_first() -> None:
    shown = {arguments[0] for page, arguments in SHOWN if page == ROOT / "README.md"}
    assert shown >= {"caption", "listen", "generate", "doctor", "cloud-key", "cloud", "serve"}
