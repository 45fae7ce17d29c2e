from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skydraft.audio.windows import MAX_WINDOW_S, MIN_WINDOW_S, WindowCutter, split_windows
from tests.audio.sounds import RATE_HZ, tone


def speech(duration_s: float, pauses_s: list[float], seed: int = 0, pause_s: float = 0.4) -> np.ndarray:
    """Noise with pauses around the given times."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(duration_s * RATE_HZ)).astype(np.float32)
    for middle_s in pauses_s:
        start_s, end_s = max(0, middle_s - pause_s / 2), middle_s + pause_s / 2
        samples[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)] *= 1e-3
    return samples


@pytest.mark.parametrize("num_samples", [1, 1_600, RATE_HZ, 8 * RATE_HZ])
def test_a_clip_of_at_most_eight_seconds_is_one_window(num_samples: int) -> None:
    samples = speech(8.0, [3.0])[:num_samples]
    (window,) = split_windows(samples)
    assert (window.start_s, window.end_s) == (0, num_samples / RATE_HZ)
    assert (window.samples == samples).all()


def test_one_sample_more_makes_two_windows() -> None:
    assert len(list(split_windows(speech(8 + 1 / RATE_HZ, [])))) == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60 * RATE_HZ), st.lists(st.floats(0.5, 59), max_size=9), st.integers(0, 9))
def test_every_sample_is_in_exactly_one_window(num_samples: int, pauses_s: list[float], seed: int) -> None:
    samples = speech(60.0, pauses_s, seed, pause_s=0.8)[:num_samples]
    windows = list(split_windows(samples))
    assert (np.concatenate([window.samples for window in windows]) == samples).all()
    assert [window.start_s for window in windows] == [0, *(window.end_s for window in windows[:-1])]
    for window in windows:
        duration_s = window.end_s - window.start_s
        assert len(window.samples) == round(duration_s * RATE_HZ)
        assert duration_s <= MAX_WINDOW_S + 1e-9
        assert duration_s >= MIN_WINDOW_S - 1e-9 or len(windows) == 1


def test_a_cut_is_in_the_first_clear_pause() -> None:
    first, second, third = split_windows(speech(12.0, [3.0, 7.0], pause_s=0.8))
    assert first.end_s == second.start_s == pytest.approx(3.0, abs=0.15)
    assert second.end_s == third.start_s == pytest.approx(7.0, abs=0.15)


def test_without_a_clear_pause_a_cut_is_in_the_quietest_stop_of_the_second_half() -> None:
    samples = speech(10.0, [2.0, 5.0, 7.0])
    samples[round(4.8 * RATE_HZ) : round(5.2 * RATE_HZ)] *= 0.5
    first, _ = split_windows(samples)
    assert first.end_s == pytest.approx(5.0, abs=0.12)


def test_a_clear_pause_comes_before_a_quieter_stop() -> None:
    samples = speech(10.0, [7.0])
    samples[3 * RATE_HZ : 4 * RATE_HZ] *= 0.03
    samples[round(6.8 * RATE_HZ) : round(7.2 * RATE_HZ)] = 0
    assert next(split_windows(samples)).end_s == pytest.approx(3.3, abs=0.02)


def test_a_stop_within_a_word_is_no_pause() -> None:
    samples = speech(10.0, [5.0])
    samples[6 * RATE_HZ : 6 * RATE_HZ + 800] = 0  # 50 ms, quieter than the pause
    first, _ = split_windows(samples)
    assert first.end_s == pytest.approx(5.0, abs=0.12)


def test_after_a_long_silence_a_word_is_not_cut_from_its_beginning() -> None:
    samples = np.concatenate([np.full(5 * RATE_HZ, 1e-4, np.float32), speech(3.9, []), np.zeros(RATE_HZ, np.float32)])
    assert all(not 5.0 <= window.end_s < 8.9 for window in split_windows(samples))


def test_silences_in_a_row_are_one_window_however_long() -> None:
    samples = np.concatenate([tone(5.0), np.zeros(30 * RATE_HZ, np.float32), tone(6.0)])
    windows = list(split_windows(samples))
    assert [window.has_speech for window in windows] == [True, False, True]
    assert windows[1].end_s - windows[1].start_s > 25
    assert (np.concatenate([window.samples for window in windows]) == samples).all()


def test_who_says_what_is_speech_is_asked_for_each_window_when_it_is_wanted() -> None:
    asked: list[int] = []

    def has_speech(samples: np.ndarray) -> bool:
        asked.append(len(samples))
        return len(asked) not in (2, 3)

    windows = split_windows(speech(22.0, [3.0, 8.0, 13.0, 18.0], pause_s=0.8), has_speech)
    assert asked == []
    assert next(windows).has_speech
    assert len(asked) == 1
    rest = list(windows)
    assert [window.has_speech for window in rest] == [False, True, True]
    assert len(rest[0].samples) == asked[1] + asked[2]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.5, 29), max_size=9), st.lists(st.integers(1, 9 * RATE_HZ), min_size=1), st.integers(0, 9))
def test_a_stream_is_cut_where_its_recording_is_however_it_comes(
    pauses_s: list[float], lengths: list[int], seed: int
) -> None:
    samples = speech(30.0, pauses_s, seed, pause_s=0.8)
    borders = [0, *np.cumsum(lengths).tolist()]
    cutter = WindowCutter()
    parts = [samples[start:end] for start, end in itertools.pairwise([*borders, len(samples)])]
    windows = [window for part in parts for window in cutter.feed(part)]
    last = cutter.flush()
    assert last is not None
    assert (np.concatenate([window.samples for window in [*windows, last]]) == samples).all()
    whole = list(split_windows(samples))
    same = [window[:2] for window in whole if window.end_s < 28]
    assert [window[:2] for window in windows][: len(same)] == same


def test_a_stream_without_samples_has_no_window() -> None:
    assert WindowCutter().flush() is None


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_what_is_not_a_row_of_samples_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"samples of shape \[num_samples\], at least 1, not"):
        split_windows(np.zeros(shape, np.float32))
