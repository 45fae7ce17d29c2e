"""Sounds and files for the tests of audio."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16_000


def tone(duration_s: float = 1.0, rate_hz: int = RATE_HZ, peak: float = 0.5, pitch_hz: float = 440) -> np.ndarray:
    """A sine: float32 [num_samples]."""
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (peak * np.sin(2 * np.pi * pitch_hz * times)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate_hz, subtype=subtype)
    return path


def pcm_wav(
    samples: bytes,
    data_bytes: int | None = None,
    rate_hz: int = RATE_HZ,
    num_channels: int = 1,
    bits: int = 16,
    encoding: int = 1,
) -> bytes:
    """A WAV file built by hand, so that its header can lie."""
    data_bytes = len(samples) if data_bytes is None else data_bytes
    align = max(1, num_channels * bits // 8)
    byte_rate = rate_hz * align % 2**32
    fmt = struct.pack("<HHIIHH", encoding, num_channels, rate_hz, byte_rate, align % 2**16, bits)
    riff_bytes = (36 + data_bytes) % 2**32
    header = struct.pack("<4sI8sI", b"RIFF", riff_bytes, b"WAVEfmt ", 16) + fmt
    return header + struct.pack("<4sI", b"data", data_bytes) + samples


def pcm16(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()
