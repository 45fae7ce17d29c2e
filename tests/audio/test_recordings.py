"""Real recordings: RAVDESS, 16 kHz mono FLAC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skydraft.audio.read import read_clip
from skydraft.audio.windows import split_windows

RECORDINGS = Path(__file__).parents[3] / "shared" / "speech" / "ravdess"

pytestmark = [
    pytest.mark.speech,
    pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings are not in ../shared/speech/ravdess"),
]


def test_twenty_recordings_spread_over_all_are_read_as_they_are() -> None:
    paths = sorted(RECORDINGS.glob("*.flac"))
    for path in paths[:: len(paths) // 20]:
        clip = read_clip(path)
        assert 2.5 < clip.duration_s < 6, path
        assert clip.notes == (), path


def test_recordings_in_a_row_are_cut_in_the_pauses_between_them() -> None:
    paths = sorted(RECORDINGS.glob("*.flac"))[:20]
    samples = np.concatenate([read_clip(path).samples for path in paths])
    windows = list(split_windows(samples))
    assert len(windows) >= len(paths)
    for window in windows[:-1]:
        end = round(window.end_s * 16_000)
        around = samples[end - 1_600 : end + 1_600]
        assert np.abs(around).max() < 0.02 * np.abs(window.samples).max()
