"""Any text can be had again: its seed is known, whether it was given or drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from skydraft.cli import run
from skydraft.cli.results import result_of_text
from skydraft.cli.summaries import summary
from tests.cli.made_up import report

MODEL = "table:vocab=64,seed=3,order=2,tensors=1"
ALONE = ("--draft", MODEL, "--mode", "edge", "--json", "--max-tokens", "12")
SAMPLED = (*ALONE, "--temperature", "1")


def answers(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    assert run([str(argument) for argument in arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def ids(answer: dict[str, Any]) -> list[int]:
    return [token["id"] for token in answer["tokens"]]


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """Two files of the same sound, in two windows each."""
    sound = np.sin(np.arange(10 * 16_000) / 20) / 2
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for path in paths:
        soundfile.write(path, sound, 16_000)
    return paths


def test_a_sampled_text_is_new_each_time_and_its_seed_gives_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (answers(capsys, "generate", "ba de", *SAMPLED)[0] for _ in range(2))
    assert first["seed"] != second["seed"]
    assert ids(first) != ids(second)
    [again] = answers(capsys, "generate", "ba de", *SAMPLED, "--seed", first["seed"])
    assert (again["seed"], ids(again)) == (first["seed"], ids(first))


def test_a_drawn_seed_survives_readers_of_json_that_have_only_floats(capsys: pytest.CaptureFixture[str]) -> None:
    [answer] = answers(capsys, "generate", "ba de", *SAMPLED)
    assert int(float(answer["seed"])) == answer["seed"]


def test_of_several_files_each_has_its_own_seed_and_can_be_had_again_alone(
    capsys: pytest.CaptureFixture[str], clips: list[Path]
) -> None:
    both = answers(capsys, "caption", "--any-sound", *clips, *SAMPLED)
    assert both[0]["seed"] != both[1]["seed"]
    assert [len(answer["windows"]) for answer in both] == [2, 2]
    for path, answer in zip(clips, both, strict=True):
        [alone] = answers(capsys, "caption", "--any-sound", path, *SAMPLED, "--seed", answer["seed"])
        assert ids(alone) == ids(answer)


def test_a_given_seed_is_that_of_every_file(capsys: pytest.CaptureFixture[str], clips: list[Path]) -> None:
    both = answers(capsys, "caption", "--any-sound", *clips, *SAMPLED, "--seed", 7)
    assert [answer["seed"] for answer in both] == [7, 7]
    assert ids(both[0]) == ids(both[1])


def test_a_greedy_text_has_no_seed(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (answers(capsys, "generate", "ba de", *ALONE, "--seed", seed)[0] for seed in (1, 2))
    assert first["seed"] is second["seed"] is None
    assert ids(first) == ids(second)


def test_the_summary_names_the_seed_of_a_sampled_text() -> None:
    assert "; seed 9007199254740991; 1 reconnect" in summary(result_of_text(report(seed=2**53 - 1, reconnects=1)))
    assert "seed" not in summary(result_of_text(report()))
