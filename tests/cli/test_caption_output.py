from __future__ import annotations

import json
from pathlib import Path

import pytest

from skydraft.cli.caption_output import CaptionOutput, chosen_format
from skydraft.cli.results import Result, result_of_clip
from skydraft.cli.screen import Screen
from skydraft.core import Mode, ShareLevel
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.report import unwritten
from skydraft.errors import AudioError, ConfigError
from tests.cli.made_up import console, printed, report


def recording(*texts: str) -> Result:
    """Captions of windows of 5 s; an empty text is one without speech."""
    silent = unwritten("No speech.", Mode.HYBRID, ShareLevel.TOKENS)
    made = [report((1,), text=text) if text else silent for text in texts]
    windows = [
        CaptionedWindow(5.0 * n, 5.0 * n + 5, each, bool(text))
        for n, (each, text) in enumerate(zip(made, texts, strict=True))
    ]
    return result_of_clip(windows)


def written(to: str, files: list[str], path: Path | None = None) -> str:
    """What the output of these recordings is on the screen."""
    screen = Screen(console(), console())
    output = CaptionOutput(screen, to, path, files)
    for file in files:
        output.add(file, recording("He sounds calm.", "", "He sounds angry."))
    return printed(screen.out)


def test_subtitles_leave_out_what_is_no_speech_and_count_on() -> None:
    assert written("srt", ["a.wav"]) == (
        "1\n00:00:00,000 --> 00:00:05,000\nHe sounds calm.\n\n2\n00:00:10,000 --> 00:00:15,000\nHe sounds angry.\n\n"
    )


def test_a_table_of_several_recordings_has_one_header() -> None:
    lines = written("csv", ["a.wav", "b.wav"]).splitlines()
    assert len(lines) == 7
    assert [line.split(",")[0] for line in lines] == ["file", *["a.wav"] * 3, *["b.wav"] * 3]
    assert lines[2] == "a.wav,5.000,10.000,false,,,,No speech."


@pytest.mark.parametrize("to", ["srt", "vtt"])
def test_subtitles_of_several_recordings_need_a_folder(to: str, tmp_path: Path) -> None:
    for path in (None, tmp_path / "all.srt"):
        with pytest.raises(ConfigError, match=f"{to} is a format of one recording and 2 are given: add -o FOLDER"):
            written(to, ["a.wav", "b.wav"], path)


@pytest.mark.parametrize(
    ("to", "suffix"),
    [("text", "txt"), ("srt", "srt"), ("vtt", "vtt"), ("csv", "csv"), ("tsv", "tsv"), ("json", "json")],
)
def test_a_folder_gets_a_file_for_each_recording(to: str, suffix: str, tmp_path: Path) -> None:
    assert written(to, ["x/a.wav", "y/a.wav", "b.m4a"], tmp_path) == ""
    assert {path.name for path in tmp_path.iterdir()} == {f"a.{suffix}", f"a-2.{suffix}", f"b.{suffix}"}
    alone = tmp_path / "alone"
    alone.mkdir()
    written(to, ["b.m4a"], alone)
    assert (alone / f"b.{suffix}").read_text() == (tmp_path / f"b.{suffix}").read_text() != ""


def test_a_file_is_written_anew_and_has_all_recordings(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text("old")
    written("json", ["a.wav", "caf\udcc3.wav"], path)
    assert [json.loads(line)["file"] for line in path.read_text().splitlines()] == ["a.wav", "caf\udcc3.wav"]
    written("tsv", ["caf\udcc3.wav"], tmp_path / "all.tsv")
    assert "caf\\udcc3.wav\t0.000" in (tmp_path / "all.tsv").read_text()


def test_a_recording_that_failed_is_in_json_only(tmp_path: Path) -> None:
    for to, expected in (("json", '{"file": "a.wav", "error": "no sound"}\n'), ("csv", "")):
        screen = Screen(console(), console())
        CaptionOutput(screen, to, None, ["a.wav"]).fail("a.wav", AudioError("no sound"))
        assert printed(screen.out) == expected


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    sound = tmp_path / "a.wav"
    sound.write_bytes(b"sound")
    with pytest.raises(ConfigError, match="is one of the recordings and would be overwritten"):
        written("text", ["b.wav", str(sound)], sound)
    assert sound.read_bytes() == b"sound"


def test_a_file_in_no_folder_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the folder of '.*/gone/a.txt' does not exist"):
        CaptionOutput(Screen(console(), console()), "text", tmp_path / "gone" / "a.txt", ["a.wav"])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.srt").mkdir()
    with pytest.raises(ConfigError, match=r"a.srt' cannot be written \(Is a directory\): name another"):
        written("srt", ["a.wav"], tmp_path)


def test_json_is_a_format_too_and_one_is_enough() -> None:
    assert [chosen_format(None, False), chosen_format(None, True), chosen_format("json", True)] == [
        "text",
        *["json"] * 2,
    ]
    assert chosen_format("vtt", False) == "vtt"
    with pytest.raises(ConfigError, match="--json and --format srt are two formats"):
        chosen_format("srt", True)
