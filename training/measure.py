"""What can be measured in a clip without a model: pitch, loudness, rate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, rfft
from scipy.ndimage import median_filter, uniform_filter1d

from training.clips import SAMPLE_RATE_HZ

HOP = 160  # samples; one log-mel frame
_WINDOW = 640  # samples; three periods of the lowest pitch
_LOWEST_HZ, _HIGHEST_HZ = 70.0, 600.0
_VOICED_ABOVE = 0.55  # normalised autocorrelation peak
_ACTIVE_BELOW_PEAK_DB = 27.0
_OCTAVE_COST = 0.03  # prefers the shorter of two equally good periods (Boersma 1993)


class Track(NamedTuple):
    """Per-frame measurements, one row every 10 ms."""

    pitch_hz: np.ndarray  # float32 [num_frames], 0 where unvoiced
    level_db: np.ndarray  # float32 [num_frames], dB of full scale


class Measurement(NamedTuple):
    """One clip in numbers."""

    pitch_hz: float  # median over voiced frames
    pitch_range_semitones: float  # 10th to 90th percentile
    pitch_change_semitones: float  # last third minus first third of the voiced frames
    loudness_db: float  # RMS of the active part, dB of full scale
    active_s: float  # from the first to the last active frame
    first_frame: int
    end_frame: int


def track(samples: np.ndarray) -> Track:
    """Follow pitch and level.

    Args:
        samples: float [num_samples] at 16 kHz.
    Returns:
        Track: num_frames = num_samples // 160, frame i centred on sample 160 i.
    """
    num_frames = len(samples) // HOP
    padded = np.pad(samples.astype(np.float32), _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP][:num_frames]
    power = np.mean(frames**2, axis=1)
    level_db = 10 * np.log10(power + 1e-10)
    pitch_hz = _pitch(frames)
    is_audible = level_db > level_db.max() - _ACTIVE_BELOW_PEAK_DB
    return Track(np.where(is_audible, pitch_hz, 0.0).astype(np.float32), level_db.astype(np.float32))


def measure(samples: np.ndarray) -> Measurement:
    """Summarise a clip; silence measures as pitch 0 and its own level."""
    return summarise(track(samples))


def summarise(followed: Track) -> Measurement:
    """Summarise a track into one Measurement."""
    first, end = active_frames(followed.level_db)
    voiced_hz = followed.pitch_hz[first:end]
    voiced_hz = voiced_hz[voiced_hz > 0]
    active_power = 10 ** (followed.level_db[first:end] / 10)
    loudness_db = float(10 * np.log10(active_power.mean() + 1e-10))
    active_s = (end - first) * HOP / SAMPLE_RATE_HZ
    if len(voiced_hz) < 6:
        return Measurement(0.0, 0.0, 0.0, loudness_db, active_s, first, end)
    semitones = 12 * np.log2(voiced_hz / 100)
    third = len(semitones) // 3
    low, high = np.percentile(semitones, [10, 90])
    change = float(np.median(semitones[-third:]) - np.median(semitones[:third]))
    return Measurement(float(np.median(voiced_hz)), float(high - low), change, loudness_db, active_s, first, end)


def active_frames(level_db: np.ndarray) -> tuple[int, int]:
    """First and end (exclusive) frame of the speech, by level below the peak."""
    smooth_db = uniform_filter1d(level_db, 5)
    active = np.flatnonzero(smooth_db > smooth_db.max() - _ACTIVE_BELOW_PEAK_DB)
    return int(active[0]), int(active[-1]) + 1


def _pitch(frames: np.ndarray) -> np.ndarray:
    """Pitch of each frame by normalised autocorrelation: float32 [num_frames], 0 where unvoiced."""
    window = np.hanning(_WINDOW).astype(np.float32)
    correlation = _autocorrelation((frames - frames.mean(axis=1, keepdims=True)) * window)
    normal = _autocorrelation(window[None])[0]
    shortest, longest = int(SAMPLE_RATE_HZ / _HIGHEST_HZ), int(SAMPLE_RATE_HZ / _LOWEST_HZ)
    lags = np.arange(shortest - 1, longest + 2)
    score = correlation[:, lags] / (correlation[:, :1] + 1e-9) / (normal[lags] / normal[0])
    ranked = score - _OCTAVE_COST * np.log2(lags / shortest)
    ranked[:, [0, -1]] = -1.0
    is_peak = (ranked[:, 1:-1] >= ranked[:, :-2]) & (ranked[:, 1:-1] > ranked[:, 2:])
    ranked[:, 1:-1] = np.where(is_peak, ranked[:, 1:-1], -1.0)
    best = ranked.argmax(axis=1).clip(1, len(lags) - 2)
    pitch_hz = SAMPLE_RATE_HZ / _refined(score, best, lags)
    is_voiced = np.take_along_axis(score, best[:, None], 1)[:, 0] > _VOICED_ABOVE
    return _without_jumps(np.where(is_voiced, pitch_hz, 0.0))


def _autocorrelation(frames: np.ndarray) -> np.ndarray:
    spectrum = rfft(frames, 2 * _WINDOW)
    lagged: np.ndarray = irfft(np.abs(spectrum) ** 2)[:, :_WINDOW]
    return lagged


def _refined(score: np.ndarray, best: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """The lag at the top of a parabola through the peak and its neighbours, in samples."""
    rows = np.arange(len(score))
    left, top, right = score[rows, best - 1], score[rows, best], score[rows, best + 1]
    bend = left - 2 * top + right
    shift = np.where(np.abs(bend) > 1e-6, 0.5 * (left - right) / np.where(bend == 0, 1, bend), 0.0)
    refined: np.ndarray = lags[best] + shift.clip(-0.5, 0.5)
    return refined


def _without_jumps(pitch_hz: np.ndarray) -> np.ndarray:
    """Unvoice frames more than five semitones from the local median: octave errors and clicks."""
    if not (pitch_hz > 0).any():
        return pitch_hz
    voiced = pitch_hz[pitch_hz > 0]
    local = median_filter(voiced, 15, mode="nearest")
    kept = pitch_hz.copy()
    kept[pitch_hz > 0] = np.where(np.abs(12 * np.log2(voiced / local)) < 5, voiced, 0.0)
    return kept
