"""Splits a long clip into windows that a model can take: at most 30 s each, cut where it is quiet."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skydraft.audio.read import SAMPLE_RATE_HZ, Samples, is_silent

MAX_WINDOW_S = 30.0  # what the audio encoder of Whisper and Qwen2.5-Omni takes
MIN_WINDOW_S = 1.0
SEARCH_FROM = 0.5  # cuts are made in the second half of the longest window: more windows take more prefills
HOP_S = 0.01
PAUSE_S = 0.2  # a cut is in the middle of a pause of this length: shorter ones are stops within words


class Window(NamedTuple):
    """A part of a clip, start_s (included) to end_s (not).

    samples: float32 [num_samples], a view of the clip's.
    is_silent: nothing in it is above -60 dBFS; there is nothing to caption.
    """

    start_s: float
    end_s: float
    samples: Samples
    is_silent: bool


def split_windows(samples: Samples) -> tuple[Window, ...]:
    """Split 16 kHz mono into windows; each sample is in exactly one, in order.

    A clip of at most 30 s is one window. Of a longer one, no window is longer than 30 s or shorter than 1 s.

    Args:
        samples: float32 [num_samples].
    Raises:
        ValueError: it is empty, or has more than one dimension.
    """
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"windows are cut from samples of shape [num_samples], at least 1, not {list(samples.shape)}")
    borders = _borders(samples)
    return tuple(_window(samples, start, end) for start, end in itertools.pairwise(borders))


def _borders(samples: Samples) -> list[int]:
    """The beginnings of the windows and the end of the last, in samples."""
    most, least = int(MAX_WINDOW_S * SAMPLE_RATE_HZ), int(MIN_WINDOW_S * SAMPLE_RATE_HZ)
    borders = [0]
    while len(samples) - borders[-1] > most:
        start = borders[-1]
        latest = min(start + most, len(samples) - least)
        earliest = start + int(SEARCH_FROM * (latest - start))
        borders.append(_quietest(samples, earliest, latest))
    return [*borders, len(samples)]


def _quietest(samples: Samples, earliest: int, latest: int) -> int:
    """The middle of the quietest pause within earliest..latest; of equally quiet ones the last."""
    hop, pause_hops = int(HOP_S * SAMPLE_RATE_HZ), round(PAUSE_S / HOP_S)
    energies = _energies(samples[earliest:latest], hop)
    pauses = np.convolve(energies, np.ones(pause_hops), mode="valid")
    first_hop = len(pauses) - 1 - int(np.argmin(pauses[::-1]))
    return earliest + (first_hop + pause_hops // 2) * hop


def _energies(samples: Samples, hop: int) -> npt.NDArray[np.float64]:
    """Mean square of each whole hop: float64 [num_hops]."""
    whole = samples[: len(samples) // hop * hop].reshape(-1, hop)
    energies: npt.NDArray[np.float64] = np.square(whole, dtype=np.float64).mean(axis=1)
    return energies


def _window(samples: Samples, start: int, end: int) -> Window:
    part = samples[start:end]
    return Window(start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ, part, is_silent(part))
