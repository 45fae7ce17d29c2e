from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skydraft.audio.windows import MAX_WINDOW_S, MIN_WINDOW_S, split_windows
from tests.audio.sounds import RATE_HZ, tone


def speech(duration_s: float, pauses_s: list[float], seed: int = 0) -> np.ndarray:
    """Noise with pauses of 0.4 s around the given times."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(duration_s * RATE_HZ)).astype(np.float32)
    for middle_s in pauses_s:
        samples[round((middle_s - 0.2) * RATE_HZ) : round((middle_s + 0.2) * RATE_HZ)] *= 1e-3
    return samples


@pytest.mark.parametrize("num_samples", [1, 1_600, RATE_HZ, 30 * RATE_HZ])
def test_a_clip_of_at_most_thirty_seconds_is_one_window(num_samples: int) -> None:
    samples = speech(30.0, [])[:num_samples]
    (window,) = split_windows(samples)
    assert (window.start_s, window.end_s) == (0, num_samples / RATE_HZ)
    assert window.samples is samples or (window.samples == samples).all()


def test_one_sample_more_makes_two_windows() -> None:
    assert len(split_windows(speech(30 + 1 / RATE_HZ, []))) == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 130 * RATE_HZ), st.integers(0, 9))
def test_every_sample_is_in_exactly_one_window(num_samples: int, seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(num_samples, dtype=np.float32)
    windows = split_windows(samples)
    assert (np.concatenate([window.samples for window in windows]) == samples).all()
    assert [window.start_s for window in windows] == [0, *(window.end_s for window in windows[:-1])]
    for window in windows:
        duration_s = window.end_s - window.start_s
        assert len(window.samples) == round(duration_s * RATE_HZ)
        assert duration_s <= MAX_WINDOW_S + 1e-9
        assert duration_s >= MIN_WINDOW_S - 1e-9 or len(windows) == 1


def test_a_cut_is_in_the_pause() -> None:
    first, second = split_windows(speech(45.0, [22.0]))
    assert first.end_s == second.start_s == pytest.approx(22.0, abs=0.12)


def test_of_two_pauses_the_quieter_is_taken() -> None:
    samples = speech(45.0, [20.0, 26.0])
    samples[round(19.8 * RATE_HZ) : round(20.2 * RATE_HZ)] *= 0.5
    first, _ = split_windows(samples)
    assert first.end_s == pytest.approx(20.0, abs=0.12)


def test_a_stop_within_a_word_is_no_pause() -> None:
    samples = speech(45.0, [20.0])
    samples[24 * RATE_HZ : 24 * RATE_HZ + 800] = 0  # 50 ms, quieter than the pause
    first, _ = split_windows(samples)
    assert first.end_s == pytest.approx(20.0, abs=0.12)


def test_of_equally_quiet_pauses_the_last_is_taken() -> None:
    windows = split_windows(np.zeros(60 * RATE_HZ, np.float32))
    assert [window.end_s for window in windows] == pytest.approx([29.9, 58.9, 60.0], abs=1e-9)


def test_silent_windows_are_marked() -> None:
    samples = np.concatenate([tone(29.8), np.zeros(30 * RATE_HZ, np.float32), tone(20.0)])
    windows = split_windows(samples)
    assert [window.is_silent for window in windows] == [False, True, False]


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_what_is_not_a_row_of_samples_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"samples of shape \[num_samples\], at least 1, not"):
        split_windows(np.zeros(shape, np.float32))
