"""Log-mel features of a recording, as Whisper and Qwen2.5-Omni hear it: those of WhisperFeatureExtractor, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from skydraft.core import TensorSegment
from skydraft.errors import AudioError
from skydraft.text.checkpoint import Checkpoint, read_json

Doubles: TypeAlias = npt.NDArray[np.float64]

NAME, LEVELLED_NAME = "log_mel", "levelled_log_mel"
SAMPLE_RATE_HZ = 16_000
TOP_HZ = 8_000.0
FLOOR = 1e-10  # of power
LINEAR_HZ, LINEAR_MELS = 1_000.0, 15.0  # Slaney's mels: linear up to here, so many for each factor e beyond
MELS_PER_E = 27 / math.log(6.4)
RANGE = 8.0  # decades of power below a recording's loudest that are told apart
MIN_FRAMES = 3  # fewer give no audio token
MAX_VALUE = 8.0  # (log10(power) + 4) / 4 of samples in [-1, 1] lies between -1.5 and 2


class Level(NamedTuple):
    """How log-mel is brought to one level, so that a model hears no microphone distance, and rounded.

    percentile: of the frames' largest values; it becomes 1. (The largest of all may be a click.)
    steps_per_unit: features are whole numbers of steps; a unit of log-mel is 40 dB, so a step of 1/64 is 0.6 dB.
    """

    percentile: float
    steps_per_unit: int

    def steps(self, log_mel: npt.NDArray[np.floating]) -> npt.NDArray[np.int8]:
        """Level and round log-mel [num_mel_bins, num_frames]."""
        levelled = log_mel + (1 - np.percentile(log_mel.max(axis=0), self.percentile))
        steps: npt.NDArray[np.int8] = np.rint(levelled * self.steps_per_unit).clip(-127, 127).astype(np.int8)
        return steps

    def values(self, steps: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
        """What models hear."""
        return steps.astype(np.float32) / np.float32(self.steps_per_unit)


class LogMel:
    """Turns samples into log-mel features; equal samples give equal features.

    Features are float16: half the bytes of float32 on a link, 25.6 kB a second of sound. The values lie between -1.5
    and 2, so rounding moves them by at most 0.0005, which is 0.002 of a decade of power. Of a model that hears levelled
    log-mel they are int8: 8 kB a second with the 80 bands of the embedded pair. Draft and target hear the same rounded
    features. The recording is not padded to 30 s as Hugging Face's processor does, which changes only the last two
    frames: there the recording is mirrored instead of followed by silence.

    Args:
        num_mel_bins: frequency bands.
        level: of a model that was trained on levelled log-mel.
    """

    def __init__(
        self, num_mel_bins: int = 128, hop_length: int = 160, n_fft: int = 400, level: Level | None = None
    ) -> None:
        self._hop_length, self._n_fft, self._level = hop_length, n_fft, level
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
        self._filters = mel_filters(num_mel_bins, 1 + n_fft // 2)

    def __call__(self, samples: npt.NDArray[np.float32]) -> TensorSegment:
        """Features of a recording.

        Args:
            samples: float32 [num_samples] at 16 kHz, between -1 and 1.
        Returns:
            "log_mel" in float16, or "levelled_log_mel" in int8, [num_mel_bins, num_samples // hop_length].
        Raises:
            AudioError: the recording is too short or no mono recording of numbers.
        """
        self._require_sound(samples)
        log_mel = self._log_mel(samples)
        if self._level is None:
            return TensorSegment(NAME, "float16", log_mel.shape, np.ascontiguousarray(log_mel, "<f2").tobytes())
        return TensorSegment(LEVELLED_NAME, "int8", log_mel.shape, self._level.steps(log_mel).tobytes())

    def _log_mel(self, samples: npt.NDArray[np.float32]) -> Doubles:
        """[num_mel_bins, num_frames]"""
        mirrored = np.pad(samples, self._n_fft // 2, mode="reflect").astype(np.float64)
        last = len(samples) // self._hop_length * self._hop_length
        frames = sliding_window_view(mirrored, self._n_fft)[: last : self._hop_length]
        power = np.square(np.abs(np.fft.rfft(frames * self._window)))  # [num_frames, num_frequencies]
        decades = np.log10(np.maximum(self._filters @ power.T, FLOOR))
        log_mel: Doubles = (np.maximum(decades, decades.max() - RANGE) + 4) / 4
        return log_mel

    def _require_sound(self, samples: npt.NDArray[np.float32]) -> None:
        if samples.ndim != 1 or samples.dtype != np.float32:
            raise AudioError(
                f"a recording must be float32 [num_samples], one channel, and is {samples.dtype} {list(samples.shape)}"
            )
        if len(samples) < MIN_FRAMES * self._hop_length:
            raise AudioError(
                f"the recording has {len(samples) / SAMPLE_RATE_HZ:.3f} s and must have at least "
                f"{MIN_FRAMES * self._hop_length / SAMPLE_RATE_HZ:.3f} s"
            )
        if not np.isfinite(samples).all() or np.abs(samples).max() > 100:
            raise AudioError("the recording has samples that are no numbers, or far outside of -1 to 1")


def mel_filters(num_mel_bins: int, num_frequencies: int) -> Doubles:
    """How much of each frequency each band takes: [num_mel_bins, num_frequencies].

    Source: Slaney's Auditory Toolbox (1998), as librosa has it: triangles that are linear in Hz, of equal area, whose
    corners are evenly spaced on a scale that is linear below 1 kHz and logarithmic above.
    """
    corners = _hz_of_mel(np.linspace(0, _mel_of_hz(TOP_HZ), num_mel_bins + 2))[:, None]
    widths = np.diff(corners, axis=0)
    above = np.linspace(0, SAMPLE_RATE_HZ / 2, num_frequencies) - corners  # [num_mel_bins + 2, num_frequencies]
    rising, falling = above[:-2] / widths[:-1], -above[2:] / widths[1:]
    filters: Doubles = np.maximum(0, np.minimum(rising, falling)) * (2 / (corners[2:] - corners[:-2]))
    return filters


def _mel_of_hz(frequency_hz: float) -> float:
    """Of a frequency above 1 kHz."""
    return LINEAR_MELS + math.log(frequency_hz / LINEAR_HZ) * MELS_PER_E


def _hz_of_mel(mels: Doubles) -> Doubles:
    logarithmic = LINEAR_HZ * np.exp((mels - LINEAR_MELS) / MELS_PER_E)
    return np.where(mels < LINEAR_MELS, mels * (LINEAR_HZ / LINEAR_MELS), logarithmic)


def load_log_mel(checkpoint: Checkpoint) -> LogMel:
    """The features that a model was trained on: its preprocessor_config.json says which, else its config.json."""
    stated = _stated(checkpoint)
    audio = checkpoint.thinker_config.get("audio_config") or {}
    num_mel_bins = stated.get("feature_size") or audio.get("num_mel_bins") or 128
    hop_length, n_fft = int(stated.get("hop_length", 160)), int(stated.get("n_fft", 400))
    return LogMel(int(num_mel_bins), hop_length, n_fft, load_level(checkpoint))


def load_level(checkpoint: Checkpoint) -> Level | None:
    """How a model's log-mel is levelled; None: not at all, as for the published models."""
    stated = _stated(checkpoint)
    if "level_percentile" not in stated:
        return None
    return Level(float(stated["level_percentile"]), int(stated["steps_per_unit"]))


def _stated(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return read_json(checkpoint.folder / "preprocessor_config.json", is_required=False)
