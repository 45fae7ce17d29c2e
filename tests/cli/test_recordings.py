from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest

from skydraft.cli import recordings
from skydraft.cli.recordings import find_recordings, read_recording, stem_of
from skydraft.errors import AudioError, ConfigError
from tests.audio.sounds import tone, write


class Stdin:
    """Standard input with these bytes."""

    def __init__(self, data: bytes, is_terminal: bool = False) -> None:
        self.buffer = io.BytesIO(data)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.WAV", "a.mp3", "notes.txt", ".hidden.wav", "sub/c.m4a", "sub/deep/d.flac", ".cache/e.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_gives_the_recordings_below_it_in_order(folder: Path) -> None:
    found = find_recordings(["x.wav", str(folder), "-"], is_recursive=True)
    below = [str(Path(name).relative_to(folder)) for name in found[1:-1]]
    assert (found[0], found[-1]) == ("x.wav", "-")
    assert below == ["a.mp3", "b.WAV", "sub/c.m4a", "sub/deep/d.flac"]


def test_a_link_that_leads_back_is_not_followed(folder: Path) -> None:
    (folder / "sub" / "up").symlink_to(folder, target_is_directory=True)
    assert len(find_recordings([str(folder)], is_recursive=True)) == 4


def test_without_the_flag_a_folder_is_left_to_the_reader(folder: Path) -> None:
    assert find_recordings([str(folder)], is_recursive=False) == [str(folder)]
    with pytest.raises(AudioError, match="is a folder; give a sound file, or the folder with -r"):
        read_recording(str(folder))


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file of sound or film is below the folder"):
        find_recordings([str(tmp_path)], is_recursive=True)


def test_a_folder_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError, match=r"deep' cannot be read \(Permission denied\): leave it out"):
        find_recordings([str(folder)], is_recursive=True)


@pytest.mark.parametrize("name", ["*.wav", "a?.wav", "[ab].wav"])
def test_a_pattern_that_matches_nothing_is_called_so(tmp_path: Path, name: str) -> None:
    pattern = tmp_path / name
    with pytest.raises(AudioError, match="does not exist: no file matches this pattern, or it stands in quotes; check"):
        read_recording(str(pattern))
    write(pattern, tone(1.0))
    assert read_recording(str(pattern)).duration_s == 1.0


def test_standard_input_is_read_to_its_end_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = write(tmp_path / "a.flac", tone(2.0))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr("sys.stdin", Stdin(sound.read_bytes()))
    clip = read_recording("-")
    assert (clip.name, clip.duration_s) == ("standard input", 2.0)
    assert np.abs(clip.samples - tone(2.0)).max() < 2**-15
    assert list(temporary.iterdir()) == []


def test_errors_of_standard_input_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Stdin(b""))
    with pytest.raises(AudioError, match=r"^standard input is empty \(0 bytes\)"):
        read_recording("-")
    monkeypatch.setattr("sys.stdin", Stdin(b"", is_terminal=True))
    with pytest.raises(ConfigError, match="standard input is a terminal: pipe a sound file into it"):
        read_recording("-")


def test_standard_input_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MAX_STDIN_BYTES", 10_000)
    monkeypatch.setattr("sys.stdin", Stdin(bytes(10_001)))
    with pytest.raises(AudioError, match="standard input has more than 10,000 bytes"):
        read_recording("-")


def test_standard_input_is_named_once() -> None:
    with pytest.raises(ConfigError, match="is named 2 times and can be read once"):
        find_recordings(["-", "a.wav", "-"], is_recursive=False)


def test_the_captions_of_standard_input_have_a_name_too() -> None:
    assert [stem_of(file) for file in ("-", "a/b.c.wav")] == ["stdin", "b.c"]
