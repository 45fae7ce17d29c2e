"""`skydraft demo`, played in a terminal of 80 columns and 24 lines."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from skydraft.cli.demo import NEXT
from tests.system.processes import skydraft
from tools.recorded_terminal import LINES, RecordedTerminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")


def test_both_acts_fit_a_terminal_and_end_in_what_was_measured() -> None:
    terminal, commands = RecordedTerminal(), Path(sys.executable).parent
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    demo = [str(commands / "skydraft"), "demo", "--round-trip", "20", "--cloud-step", "10"]
    assert terminal.run(demo, PATH=path) == 0
    text = terminal.text
    assert terminal.num_scrolled == 0, text
    assert len(text.splitlines()) < LINES, text
    assert "a cloud that takes 10 ms a token" in text
    assert re.search(r"the cloud alone  [\d.]+ s, \d+ tokens/s +skydraft  [\d.]+ s, \d+ tokens/s", text)
    assert re.search(r"(x as fast|As fast .*|Slower .*), the same text", text)
    assert len(re.findall(r"bytes left", text)) == 2
    assert all(f"skydraft {command} " in text for command, _ in NEXT)


def test_a_pipe_gets_the_end_of_each_act_and_no_codes() -> None:
    done = skydraft("demo", "--round-trip", "0", "--cloud-step", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.count("the cloud alone") == 1


@pytest.mark.parametrize("command", [command for command, _ in NEXT])
def test_a_command_to_try_next_works_as_printed(command: str) -> None:
    name, *arguments = shlex.split(command)
    if name == "serve":
        pytest.skip("serves until Ctrl-C: tests/system/test_serve.py")
    done = skydraft(name, *arguments, stdin=None, input="Once upon a time,\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
