"""The examples, as a reader runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.running import DRAFT, TARGET
from tests.waiting import PATIENCE_S

EXAMPLES = Path(__file__).parents[2] / "examples"
OF_A_PAIR = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "caption.py")


@pytest.mark.parametrize("name", OF_A_PAIR)
def test_an_example_of_a_pair_runs(name: str) -> None:
    command = [sys.executable, str(EXAMPLES / name), DRAFT, TARGET]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.strip()


def test_the_example_of_captions_runs() -> None:
    clip = Path(__file__).parents[2] / "src" / "skydraft" / "audio" / "clips" / "sad.flac"
    command = [sys.executable, str(EXAMPLES / "caption.py"), str(clip)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(clip))
