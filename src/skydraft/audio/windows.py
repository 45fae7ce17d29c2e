"""Cuts a recording into windows of at most 8 s, where the speaker pauses; of a stream too, while it comes.

A window is to be about one utterance: how a voice sounds changes from one to the next, and the embedded models were
trained on clips of 1 to 5 s. So a cut is made in the first clear pause; where there is none, as in music or in a noisy
street, in the quietest place of the second half. Whether a window is cut is decided by what came before its end, and a
little of what came after, so a stream is cut where its recording would be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from skydraft.audio.samples import SAMPLE_RATE_HZ, Samples, is_silent

MAX_WINDOW_S = 8.0
MIN_WINDOW_S = 1.0
SEARCH_FROM = 0.5  # without a clear pause cuts are made in the second half of the longest window
CLEAR_PAUSE_S = 0.6  # longer than the pauses within a sentence
CLEAR_FROM_S = 2.0  # no cut in a clear pause makes a window shorter than this
CLEAR_DB = 25.0  # how far below the loudest of its window so far a clear pause is
STOP_S = 0.2  # what is shorter is a stop within a word
HOP_S = 0.01
HOP = int(HOP_S * SAMPLE_RATE_HZ)

_Energies = npt.NDArray[np.float64]


HasSpeech: TypeAlias = Callable[[Samples], bool]  # float32 [num_samples] -> whether anybody speaks


class Window(NamedTuple):
    """A part of a clip, start_s (included) to end_s (not).

    samples: float32 [num_samples].
    has_speech: False: there is nothing to caption.
    """

    start_s: float
    end_s: float
    samples: Samples
    has_speech: bool


def is_heard(samples: Samples) -> bool:
    """Whether there is any sound, which stands for speech where nothing tells them apart."""
    return not is_silent(samples)


def split_windows(samples: Samples, has_speech: HasSpeech = is_heard) -> Iterator[Window]:
    """Split 16 kHz mono into windows; each sample is in exactly one, in order.

    A clip of at most 8 s is one window. Of a longer one, no window is shorter than 1 s, and none longer than 8 s but
    those without speech, of which those in a row are one.

    Args:
        samples: float32 [num_samples].
        has_speech: asked for each window, when it is wanted.
    Raises:
        ValueError: it is empty, or has more than one dimension.
    """
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"windows are cut from samples of shape [num_samples], at least 1, not {list(samples.shape)}")
    return _without_gaps(_windows(samples, has_speech))


def _windows(samples: Samples, has_speech: HasSpeech) -> Iterator[Window]:
    most, least, start = _samples(MAX_WINDOW_S), _samples(MIN_WINDOW_S), 0
    while (left := len(samples) - start) > (least if start else most):
        length = _cut(samples[start : start + min(most, left - least)], is_last=left > most)
        if length is None:
            break
        yield _window(samples[start : start + length], start, has_speech)
        start += length
    yield _window(samples[start:], start, has_speech)


def _without_gaps(windows: Iterable[Window]) -> Iterator[Window]:
    """Windows without speech in a row as one."""
    for is_spoken, group in itertools.groupby(windows, lambda window: window.has_speech):
        if is_spoken:
            yield from group
            continue
        parts = list(group)
        samples = np.concatenate([part.samples for part in parts])
        yield Window(parts[0].start_s, parts[-1].end_s, samples, has_speech=False)


class WindowCutter:
    """Cuts a stream of 16 kHz mono as `split_windows` cuts a recording.

    Two things differ: it does not know where the stream ends, and windows without speech stay apart.
    """

    def __init__(self, has_speech: HasSpeech = is_heard) -> None:
        self._has_speech = has_speech
        self._start = 0
        self._waiting = np.zeros(0, np.float32)

    def feed(self, samples: Samples) -> Iterator[Window]:
        """Take in more samples.

        Args:
            samples: float32 [num_samples], any number.
        Yields:
            The windows that are whole.
        """
        self._waiting = np.concatenate([self._waiting, samples])
        most = _samples(MAX_WINDOW_S)
        while (length := _cut(self._waiting[:most], is_last=len(self._waiting) >= most)) is not None:
            yield self._take(length)

    def flush(self) -> Window | None:
        """The last window; None where nothing is left of the stream."""
        return self._take(len(self._waiting)) if len(self._waiting) else None

    def _take(self, length: int) -> Window:
        window = _window(self._waiting[:length], self._start, self._has_speech)
        self._start += length
        self._waiting = self._waiting[length:].copy()
        return window


def _cut(samples: Samples, is_last: bool) -> int | None:
    """Where a window ends that begins with these samples; None: not within them.

    Args:
        is_last: a window has no room for more, so it is cut in any case.
    """
    energies = _energies(samples)
    clear = _clear_pause(energies)
    if clear is not None:
        return clear * HOP
    return _quietest(energies) * HOP if is_last else None


def _clear_pause(energies: _Energies) -> int | None:
    """The middle of the first pause that is long and quiet beside the loudest so far, in hops."""
    is_quiet = energies < np.maximum.accumulate(energies) * 10 ** (-CLEAR_DB / 10)
    hops = np.arange(len(energies))
    quiet_hops = hops - np.maximum.accumulate(np.where(is_quiet, -1, hops))  # how long it has been quiet
    pause, first = round(CLEAR_PAUSE_S / HOP_S), round(CLEAR_FROM_S / HOP_S)
    ends = np.flatnonzero((quiet_hops >= pause) & (hops >= first + pause // 2 - 1))
    return int(ends[0]) + 1 - pause // 2 if len(ends) else None


def _quietest(energies: _Energies) -> int:
    """The middle of the quietest stop in the second half, in hops; of equally quiet ones the last."""
    stop_hops = round(STOP_S / HOP_S)
    earliest = int(SEARCH_FROM * len(energies))
    stops = np.convolve(energies[earliest:], np.ones(stop_hops), mode="valid")
    return earliest + len(stops) - 1 - int(np.argmin(stops[::-1])) + stop_hops // 2


def _energies(samples: Samples) -> _Energies:
    """Mean square of each whole hop: float64 [num_hops]."""
    whole = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)
    energies: _Energies = np.square(whole, dtype=np.float64).mean(axis=1)
    return energies


def _samples(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE_HZ)


def _window(samples: Samples, start: int, has_speech: HasSpeech) -> Window:
    end = start + len(samples)
    return Window(start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ, samples, has_speech(samples))
