from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skydraft.audio.clips import bundled_clips
from skydraft.audio.read import read_clip
from skydraft.errors import AudioError
from tests.waiting import PATIENCE_S

MAKE_CLIPS = Path(__file__).parents[2] / "tools" / "make_clips.py"


def test_four_clips_are_bundled_in_alphabetical_order() -> None:
    assert [path.name for path in bundled_clips()] == ["angry.flac", "happy.flac", "neutral.flac", "sad.flac"]


def test_bundled_clips_stay_small() -> None:
    assert sum(path.stat().st_size for path in bundled_clips()) < 150_000


@pytest.mark.parametrize("path", bundled_clips(), ids=lambda path: path.stem)
def test_bundled_clips_are_16_khz_mono_speech_of_about_three_seconds(path: Path) -> None:
    clip = read_clip(path)
    assert clip.notes == ()
    assert 2.5 < clip.duration_s < 4.5


def test_the_sad_clip_is_slower_and_quieter_than_the_angry_one() -> None:
    sad, angry = read_clip(bundled_clips()[3]).samples, read_clip(bundled_clips()[0]).samples
    assert np.abs(sad).max() < 0.1 < 0.8 < np.abs(angry).max()
    assert spoken_s(sad) > 1.5 * spoken_s(angry)


def spoken_s(samples: np.ndarray) -> float:
    loud = np.flatnonzero(np.abs(samples) > 0.05 * np.abs(samples).max())
    return float(loud[-1] - loud[0]) / 16_000


def test_an_installation_without_the_clips_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("skydraft.audio.clips.resources.files", lambda package: tmp_path)
    with pytest.raises(AudioError, match="no bundled clips are in"):
        bundled_clips()


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: apt-get install espeak-ng")
def test_the_script_makes_the_clips_again(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(MAKE_CLIPS), "--out", str(tmp_path)], check=True, timeout=PATIENCE_S)
    for path in bundled_clips():
        ours, theirs = read_clip(path), read_clip(tmp_path / path.name)
        assert theirs.duration_s == pytest.approx(ours.duration_s, abs=0.3)  # versions of espeak-ng differ a little
