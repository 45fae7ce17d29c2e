from __future__ import annotations

import json
from pathlib import Path

import pytest

from skydraft.cli.chat_commands import COMMANDS, TypedCommand, completions, parse_command
from skydraft.cli.chat_history import ChatHistory
from skydraft.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("hello", None),
        ("//etc is a folder", None),
        ("/help", TypedCommand("help", "")),
        ("/?", TypedCommand("help", "")),
        ("/bye", TypedCommand("quit", "")),
        ("/ mode  edge ", TypedCommand("mode", "edge")),
        ("/mode", TypedCommand("mode", "")),
        ("/save my talk.json", TypedCommand("save", "my talk.json")),
    ],
)
def test_a_line_is_a_message_or_a_command(line: str, command: TypedCommand | None) -> None:
    assert parse_command(line) == command


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/mod edge", "there is no command /mod: did you mean /mode? /help lists them"),
        ("/xyz", "there is no command /xyz: /help lists them"),
        ("/", "there is no command /: /help lists them"),
        ("/undo 2", "/undo takes nothing and was given '2': leave it out"),
        ("/save", "/save needs a FILE: /save FILE"),
        ("/load", "/load needs a FILE: /load FILE"),
        ("/mode both", "/mode both is not known: use hybrid, edge, cloud or auto"),
        ("/share all", "/share all is not known: use none, tokens or features"),
    ],
)
def test_a_wrong_command_is_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_command(line)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/s", ["/share", "/save"]),
        ("/", [f"/{name}" for name in COMMANDS]),
        ("/mode ", ["hybrid", "edge", "cloud", "auto"]),
        ("/share f", ["features"]),
        ("/save ta", []),
        ("/nope x", []),
        ("hello", []),
    ],
)
def test_the_tab_key_completes_commands_and_their_values(line: str, words: list[str]) -> None:
    assert completions(line) == words


def talk() -> ChatHistory:
    history = ChatHistory("Be brief.")
    for question, answer in (("ba", "de"), ("fi", "go é")):
        history.ask(question)
        history.answer(answer)
    return history


def test_a_question_without_an_answer_is_taken_back() -> None:
    history = talk()
    before = list(history.messages)
    history.ask("lost")
    assert history.for_model[-1] == {"role": "user", "content": "lost"}
    history.answer("")
    assert history.messages == before


def test_undo_takes_a_question_and_its_answer_and_clear_all_but_the_system_message() -> None:
    history = talk()
    assert history.undo() == "fi"
    assert [message.content for message in history.messages] == ["Be brief.", "ba", "de"]
    history.clear()
    assert [message.role for message in history.messages] == ["system"]
    assert history.undo() is None


def test_a_chat_is_saved_as_messages_and_goes_on_from_there(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    talk().save(path)
    assert json.loads(path.read_text()) == talk().for_model
    assert "é" in path.read_text()
    again = ChatHistory()
    again.load(path)
    assert again.messages == talk().messages
    again.undo()
    path.chmod(0o644)
    again.save(path)  # over itself
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]
    assert len(json.loads(path.read_text())) == 3


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"role": "boss", "content": "x"}]', "# Notes", '["\xff"]'])
def test_a_file_that_is_no_saved_chat_is_neither_read_nor_written_over(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content, encoding="latin-1")
    for use in (talk().load, talk().save):
        with pytest.raises(ConfigError, match="is no saved chat"):
            use(path)
    assert path.read_text(encoding="latin-1") == content


def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        talk().load(tmp_path / "gone.json")
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        talk().save(tmp_path / "gone" / "talk.json")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        talk().save(tmp_path)
