"""`skydraft chat` as people meet it: real processes at a terminal and in a pipe, with a real cloud."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skydraft.cli.summaries import STYLES
from skydraft.core import Origin
from tests.system.processes import running_cloud, skydraft, started
from tests.system.terminal import CTRL_C, CTRL_D, Terminal, at_terminal
from tests.waiting import PATIENCE_S

TARGET = "table:vocab=64,seed=3,order=2"
DRAFT = f"{TARGET},noise=0.8"
SLOW = "paced:step_ms=20:"
FLAGS = ("--draft", DRAFT, "--max-tokens", "12")
PROMPT = "\n> "

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")


def ask(terminal: Terminal, line: str) -> tuple[str, str]:
    """Type a line at the prompt; returns the first line of what is said to it, and the others as one."""
    terminal.type(f"{line}\n")
    echo, first, *others = terminal.until(PROMPT).removesuffix(PROMPT).rstrip().split("\n")
    assert echo == line
    return first, " ".join(others)


def test_a_conversation_has_colours_pace_and_shares_and_changes_its_mode_and_ends_with_ctrl_d(tmp_path: Path) -> None:
    flags = (*FLAGS, "--target", TARGET, "--way", "wait:5", "--system", "mo")
    with at_terminal("chat", *flags, cwd=tmp_path) as terminal:
        greeting = terminal.until(PROMPT)
        assert "mode hybrid: this device drafts, the cloud judges" in " ".join(greeting.split())
        assert "This model has no chat format: what you write is continued." in greeting
        answer, facts = ask(terminal, "ba de")
        assert len(answer.split()) == 12
        assert re.search(r"^[\d.]+ tokens/s; \d+ % by the cloud, \d+ % drafted here; \d+ bytes left; ended at", facts)
        for origin in (Origin.ACCEPTED, Origin.CORRECTED):
            assert f"38;5;{STYLES[origin].partition('(')[2][:-1]}m" in terminal.shown
        assert ask(terminal, "/mode edge")[0] == "mode edge: this device writes alone, and nothing leaves it."
        assert "100 % by this device alone; nothing left this device" in ask(terminal, "fi")[1]
        so_far, kinds = ask(terminal, "/share none")
        assert re.match(
            r"share none\. \d+ bytes have left this device, in messages: 1 of instruction", f"{so_far} {kinds}"
        )
        assert ask(terminal, "/mode hybrid")[0].startswith("Error: share level none lets nothing leave")
        ask(terminal, "/save talk.json")
        assert ask(terminal, "/undo")[0] == "Taken back: fi"
        ask(terminal, "/clear")
        assert ask(terminal, "/undo")[0] == "Error: /undo has nothing to take back: nothing was said"
        assert ask(terminal, "/load talk.json")[0] == "The chat goes on after 5 messages."
        assert ask(terminal, "/retry")[0] != ""
        terminal.type(CTRL_D)
        terminal.rest()
        assert terminal.process.wait(PATIENCE_S) == 0
    roles = [message["role"] for message in json.loads((tmp_path / "talk.json").read_text())]
    assert roles == ["system", "user", "assistant", "user", "assistant"]


def test_ctrl_c_stops_an_answer_and_what_is_written_stays() -> None:
    colour = f"\x1b[38;5;{STYLES[Origin.EDGE].partition('(')[2][:-1]}m"  # of each word of the answer
    with at_terminal("chat", "--draft", SLOW + DRAFT, "--mode", "edge", "--max-tokens", "3000") as terminal:
        terminal.until(PROMPT)
        terminal.type("ba de\n")
        terminal.until("ba de\n")
        while terminal.shown.count(colour) < 10:
            terminal.until(" ")
        terminal.type("typed meanwhile" + CTRL_C)
        said = terminal.until("Stopped.")
        assert "typed" not in said, "what is typed meanwhile is not in the text"
        assert "^C" not in said
        terminal.until(PROMPT)
        terminal.type(CTRL_C + "\n")  # a key wakes a readline that the signal met just before it began to wait
        terminal.until("Ctrl-D ends the chat.")
        terminal.until(PROMPT)
        terminal.type("/quit\n")
        terminal.rest()
        assert terminal.process.wait(PATIENCE_S) == 0


def test_lines_are_edited_called_back_and_completed() -> None:
    with at_terminal("chat", *FLAGS, "--mode", "edge") as terminal:
        terminal.until(PROMPT)
        terminal.type("/mo\t e\t\n")
        assert "mode edge:" in terminal.until(PROMPT)
        terminal.type("/sharx\x7fe\n")
        assert "share tokens. Nothing has left this device." in terminal.until(PROMPT)
        terminal.type("\x1b[A\n")  # up
        assert "share tokens." in terminal.until(PROMPT)
        terminal.type('"""ba\nde"""\n')
        assert "by this device alone" in terminal.until(PROMPT)
        terminal.type("/help\n")
        assert "/quit" in terminal.until(PROMPT)


def test_a_cloud_that_is_gone_is_told_and_the_chat_goes_on_alone() -> None:
    with (
        running_cloud(TARGET) as (cloud, address),
        at_terminal("chat", *FLAGS, "--cloud", address, "--offline", "fail") as terminal,
    ):
        terminal.until(PROMPT)
        assert "by the cloud" in ask(terminal, "ba de")[1]
        cloud.kill()
        cloud.wait(PATIENCE_S)
        error = " ".join(ask(terminal, "fi"))
        assert error.startswith("Error: ")
        assert address in error
        error = " ".join(ask(terminal, "/retry"))
        assert error.startswith("Error: ")
        ask(terminal, "/mode edge")
        assert "by this device alone" in ask(terminal, "/retry")[1], "a question whose answer failed is still there"
        assert ask(terminal, "/undo")[0] == "Taken back: ba de"


def test_a_chat_without_cloud_or_draft_says_what_a_mode_needs() -> None:
    with at_terminal("chat", *FLAGS, "--mode", "edge") as terminal:
        terminal.until(PROMPT)
        assert "needs a cloud and there is none" in " ".join(ask(terminal, "/mode hybrid"))
    with at_terminal("chat", *FLAGS, "--mode", "cloud", "--target", TARGET) as terminal:
        terminal.until(PROMPT)
        assert "needs a draft model and none is loaded" in " ".join(ask(terminal, "/mode edge"))
        assert "100 % by the cloud" in ask(terminal, "ba de")[1]


def piped(text: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A chat that reads this, in bytes where \\udcff stands for one that is no text."""
    return skydraft("chat", *FLAGS, "--mode", "edge", *flags, stdin=None, input=text, errors="surrogateescape")


def test_a_pipe_is_a_script_of_messages_and_commands(tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    done = piped(f'ba de\n\n//fi\n"""/mo\nka"""\n/save {saved}\n/quit\nnot asked\n')
    assert (done.returncode, done.stderr) == (0, "")
    messages = json.loads(saved.read_text())
    assert [message["content"] for message in messages[::2]] == ["ba de", "/fi", "/mo\nka"]
    assert done.stdout.splitlines() == [message["content"] for message in messages[1::2]]
    assert saved.stat().st_mode & 0o077 == 0


def test_what_goes_wrong_in_a_pipe_ends_the_script_in_a_sentence() -> None:
    done = piped("/nope\nba de\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: there is no command /nope")
    assert "not UTF-8" in piped("\udcff\n").stderr
    assert piped("", "--cloud", "127.0.0.1:9", "--mode", "hybrid").returncode == 1


def test_answers_go_to_a_file_and_prompts_to_the_terminal(tmp_path: Path) -> None:
    answers = tmp_path / "answers.txt"
    with (
        answers.open("w") as file,
        at_terminal("chat", *FLAGS, "--mode", "edge", stdout=file) as terminal,
    ):
        terminal.until(PROMPT)
        assert "100 % by this device alone" in ask(terminal, "ba de")[0]
        terminal.type(CTRL_D)
        terminal.rest()
        assert terminal.process.wait(PATIENCE_S) == 0
    assert len(answers.read_text().split()) == 12


def test_ctrl_c_in_a_script_ends_it() -> None:
    flags = ("--draft", SLOW + DRAFT, "--mode", "edge", "--max-tokens", "3000")
    with started("chat", *flags, stdin=subprocess.PIPE, start_new_session=True) as process:
        process.stdin.write("ba\n")
        process.stdin.flush()
        process.stdout.read(10)
        process.send_signal(2)
        assert process.communicate(timeout=PATIENCE_S)[1] == ""
        assert process.returncode == 130
