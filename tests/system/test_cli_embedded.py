"""The command line with the embedded pair; in this process, which has torch already, with a real cloud beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from skydraft.audio.clips import bundled_clips
from skydraft.audio.read import read_clip
from skydraft.cli import run
from skydraft.models import embedded_path

pytestmark = pytest.mark.skipif(
    not (embedded_path("target") / "model.safetensors").is_file(), reason="needs the embedded pair"
)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """3 s at 16 kHz."""
    return read_clip(bundled_clips()[0]).samples


def captions(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    assert run(["caption", "--json", "--any-voice", "--threads", "1", *map(str, arguments)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_files_of_other_kinds_are_converted_and_captioned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], speech: np.ndarray
) -> None:
    twice = np.repeat(speech, 3)  # 48 kHz, crudely
    soundfile.write(tmp_path / "24-bit.wav", speech, 16_000, subtype="PCM_24")
    soundfile.write(tmp_path / "stereo.wav", np.stack([twice, twice], axis=1), 48_000)
    soundfile.write(tmp_path / "extensible.wav", speech, 16_000, format="WAVEX")
    files = [tmp_path / name for name in ("24-bit.wav", "stereo.wav", "extensible.wav")]
    answers = captions(capsys, *files, "--mode", "edge", "--share", "none")
    assert [answer["file"] for answer in answers] == list(map(str, files))
    assert answers[0]["text"] == answers[2]["text"] != ""
    for answer in answers:
        assert "".join(token["text"] for token in answer["tokens"]) == answer["text"]
        assert {token["origin"] for token in answer["tokens"]} == {"edge"}
        assert answer["bytes"] == {"up": {}, "down": {}}
        assert "windows" not in answer


def test_a_clip_over_8_seconds_is_captioned_in_windows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], speech: np.ndarray
) -> None:
    quiet = np.zeros(35 * 16_000, np.float32)
    soundfile.write(tmp_path / "long.wav", np.concatenate([speech, quiet, speech]), 16_000)
    [answer] = captions(capsys, tmp_path / "long.wav", "--mode", "edge")
    windows = answer["windows"]
    assert [window["start_s"] for window in windows[1:]] == [window["end_s"] for window in windows[:-1]]
    assert (windows[0]["start_s"], windows[-1]["end_s"]) == (0.0, 41.0)
    assert all(window["end_s"] - window["start_s"] <= 8 for window in windows if window["speech"])
    assert [window["text"] for window in windows if not window["speech"]] == ["No speech."]
    assert " ".join(window["text"] for window in windows if window["speech"]) == answer["text"]
    assert "".join(token["text"] for token in answer["tokens"]) == answer["text"]
