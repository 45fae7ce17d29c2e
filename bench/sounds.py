"""Sounds in which nobody speaks, made by formulas: noises, tones, hum, clicks, music-like synthesis, breath, engines.

Each kind takes a random generator for its pitches, paces and colours, so that a seed is a sound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from skydraft.audio.samples import SAMPLE_RATE_HZ, Samples

Sound: TypeAlias = Any  # float64 [num_samples]: numpy types sums and products of arrays as Any
Rng = np.random.Generator

DURATION_S = 4.0
NUM_SAMPLES = round(DURATION_S * SAMPLE_RATE_HZ)
TIMES_S = np.arange(NUM_SAMPLES) / SAMPLE_RATE_HZ
PEAK = 0.3


def sound(kind: str, seed: int) -> Samples:
    """One sound: float32 [num_samples], 16 kHz, 4 s.

    Args:
        kind: one of `KINDS`.
    """
    made = KINDS[kind](np.random.default_rng([seed, *kind.encode()]))
    scaled: Samples = (made * (PEAK / np.abs(made).max())).astype(np.float32)
    return scaled


def _coloured(rng: Rng, slope: float, low_hz: float = 20, high_hz: float = 8000) -> Sound:
    """Noise whose power falls with the frequency to this slope, between two frequencies."""
    frequencies = np.fft.rfftfreq(NUM_SAMPLES, 1 / SAMPLE_RATE_HZ)
    is_in = (frequencies >= low_hz) & (frequencies <= high_hz)
    weights = np.where(is_in, np.maximum(frequencies, 1.0) ** (-slope / 2), 0)
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(NUM_SAMPLES)) * weights, NUM_SAMPLES)


def _sine(pitch_hz: npt.ArrayLike, phase: float = 0.0) -> Sound:
    """A tone whose pitch may change from sample to sample."""
    phases = np.cumsum(np.broadcast_to(np.asarray(pitch_hz, np.float64), NUM_SAMPLES)) / SAMPLE_RATE_HZ
    return np.sin(2 * np.pi * phases + phase)


def _harmonic(rng: Rng, pitch_hz: npt.ArrayLike, slope: float, num_partials: int = 20) -> Sound:
    """A tone with overtones."""
    highest = float(np.max(pitch_hz))
    partials = [n for n in range(1, num_partials + 1) if n * highest < SAMPLE_RATE_HZ / 2]
    return np.sum([_sine(n * np.asarray(pitch_hz), rng.uniform(0, 6)) / n**slope for n in partials], axis=0)


def _pulses(rng: Rng, times_s: npt.NDArray[np.float64], decay_s: float, make: Callable[[int], Sound]) -> Sound:
    """A short sound at each of the times; each dies away."""
    made = np.zeros(NUM_SAMPLES)
    length = min(NUM_SAMPLES, round(8 * decay_s * SAMPLE_RATE_HZ))
    envelope = np.exp(-np.arange(length) / (decay_s * SAMPLE_RATE_HZ))
    for time_s in times_s:
        start = round(time_s * SAMPLE_RATE_HZ)
        part = make(length)[: NUM_SAMPLES - start]
        made[start : start + len(part)] += part * envelope[: len(part)] * rng.uniform(0.5, 1)
    return made


def _regular(rng: Rng, least_hz: float, most_hz: float) -> npt.NDArray[np.float64]:
    return np.arange(rng.uniform(0, 0.3), DURATION_S, 1 / rng.uniform(least_hz, most_hz))


def _noise(rng: Rng) -> Sound:
    return _coloured(rng, rng.choice([-1.0, 0.0, 1.0, 2.0]))


def _band_noise(rng: Rng) -> Sound:
    low_hz = rng.uniform(100, 3000)
    return _coloured(rng, 0, low_hz, low_hz * rng.uniform(1.3, 3))


def _tone(rng: Rng) -> Sound:
    return _sine(rng.uniform(80, 3000))


def _chord(rng: Rng) -> Sound:
    root_hz = rng.uniform(110, 440)
    steps = ([0, 4, 7], [0, 3, 7], [0, 4, 7, 10], [0, 5, 7, 12])[rng.integers(4)]
    return np.sum([_harmonic(rng, root_hz * 2 ** (step / 12), 1.5, 8) for step in steps], axis=0)


def _hum(rng: Rng) -> Sound:
    return _harmonic(rng, rng.choice([50.0, 60.0]), rng.uniform(0.5, 1.5), 40) + 0.05 * rng.standard_normal(NUM_SAMPLES)


def _clicks(rng: Rng) -> Sound:
    return _pulses(rng, _regular(rng, 1, 12), 0.002, rng.standard_normal)


def _typing(rng: Rng) -> Sound:
    times_s = np.cumsum(rng.exponential(0.15, 60))
    return _pulses(rng, times_s[times_s < DURATION_S], 0.012, rng.standard_normal) + 0.003 * _coloured(rng, 1)


def _melody(rng: Rng) -> Sound:
    """Plucked or blown notes of a scale, a quarter of a second each or so."""
    made, start = np.zeros(NUM_SAMPLES), 0
    root_hz, decay_s, slope = rng.uniform(160, 500), rng.uniform(0.1, 0.6), rng.uniform(0.8, 2)
    while start < NUM_SAMPLES:
        length = round(rng.choice([0.15, 0.25, 0.5]) * SAMPLE_RATE_HZ)
        pitch_hz = root_hz * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
        note = _harmonic(rng, pitch_hz, slope, 10)[:length] * np.exp(-TIMES_S[:length] / decay_s)
        made[start : start + length] += note[: NUM_SAMPLES - start]
        start += length
    return made


def _band(rng: Rng) -> Sound:
    """A melody over chords and drums."""
    drums = _pulses(rng, _regular(rng, 2, 4), 0.05, rng.standard_normal)
    parts = (_melody(rng), _chord(rng), drums)
    return np.sum([part / np.abs(part).max() * rng.uniform(0.4, 1) for part in parts], axis=0)


def _breath(rng: Rng) -> Sound:
    """In and out, coloured by a mouth without a voice."""
    rate_hz = rng.uniform(0.25, 0.7)
    swell = np.maximum(0, np.sin(2 * np.pi * rate_hz * TIMES_S + rng.uniform(0, 6))) ** 1.5
    return _coloured(rng, rng.uniform(0, 1.5), rng.uniform(150, 400), rng.uniform(2500, 7000)) * swell


def _wind(rng: Rng) -> Sound:
    gusts = np.abs(_coloured(rng, 0, 0.2, 2.0))
    return _coloured(rng, 2, 30, 1500) * (0.3 * gusts.max() + gusts)


def _siren(rng: Rng) -> Sound:
    swing = np.sin(2 * np.pi * rng.uniform(0.2, 3) * TIMES_S)
    swing = np.sign(swing) if rng.random() < 0.3 else swing
    return _harmonic(rng, rng.uniform(600, 1000) * 2 ** (0.5 * swing), 1.5, 5)


def _engine(rng: Rng) -> Sound:
    """Firing strokes of a motor whose pace wanders, through a box."""
    wandering = np.sin(2 * np.pi * rng.uniform(0.05, 0.4) * TIMES_S + rng.uniform(0, 6))
    pace_hz = rng.uniform(20, 90) * 2 ** (0.3 * wandering)
    return _harmonic(rng, pace_hz, rng.uniform(0.5, 1.2), 40) + 15 * _coloured(rng, 1, 50, 2000)


def _alarm(rng: Rng) -> Sound:
    """Beeps."""
    is_on = np.sin(2 * np.pi * rng.uniform(1, 5) * TIMES_S) > rng.uniform(-0.5, 0.5)
    return _harmonic(rng, rng.uniform(700, 3000), 2, 3) * is_on


def _birds(rng: Rng) -> Sound:
    """Short whistles that slide."""

    def chirp(length: int) -> Sound:
        slide = np.linspace(0, rng.uniform(-1, 1), NUM_SAMPLES) * NUM_SAMPLES / length
        return _sine(np.minimum(7000, rng.uniform(1800, 4500) * 2 ** np.clip(slide, -1, 1)))[:length]

    return _pulses(rng, np.sort(rng.uniform(0, DURATION_S - 0.1, 14)), 0.04, chirp) + 0.003 * _coloured(rng, 1)


KINDS: dict[str, Callable[[Rng], Sound]] = {
    "noise": _noise,
    "band noise": _band_noise,
    "tone": _tone,
    "chord": _chord,
    "hum": _hum,
    "clicks": _clicks,
    "typing": _typing,
    "melody": _melody,
    "band": _band,
    "breath": _breath,
    "wind": _wind,
    "siren": _siren,
    "engine": _engine,
    "alarm": _alarm,
    "birds": _birds,
}
