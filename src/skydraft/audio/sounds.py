"""Sound that is no file: the bytes of one, or an array of samples."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from skydraft.audio.read import Clip, read_clip
from skydraft.errors import AudioError

AnySound: TypeAlias = str | Path | bytes | npt.NDArray[Any] | Clip

NAME = "the clip"
SUBTYPES = {"i2": "PCM_16", "i4": "PCM_32", "f4": "FLOAT", "f8": "DOUBLE"}  # by dtype


def as_clip(sound: AnySound, rate_hz: int | None = None) -> Clip:
    """Read a sound file, the bytes of one, or an array.

    Args:
        sound: an array is int16, int32, float32 or float64, [num_samples] or [num_samples, num_channels]; floats have
            full scale 1.
        rate_hz: of an array.
    Raises:
        AudioError: as `read_clip`, or an array without a rate or of another type or shape.
    """
    match sound:
        case Clip():
            return sound
        case str() | Path():
            return read_clip(sound)
        case bytes():
            return clip_of_bytes(sound)
    if rate_hz is None:
        raise AudioError("the samples of an array mean nothing without their rate: give rate_hz, for example 16000")
    return clip_of_bytes(_as_wav(sound, rate_hz))


def clip_of_bytes(data: bytes, name: str = NAME) -> Clip:
    """Read the contents of a sound file.

    Args:
        name: what errors call it.
    Raises:
        AudioError: as `read_clip`.
    """
    with _as_file(data) as path:
        clip = read_clip(path, name)
    return Clip(name, clip.samples, clip.notes)


def _as_wav(samples: npt.NDArray[Any], rate_hz: int) -> bytes:
    try:
        import soundfile
    except ImportError:
        raise AudioError("reading audio needs soundfile: pip install 'skydraft[audio]'") from None
    subtype = SUBTYPES.get(samples.dtype.str[1:])
    if subtype is None or samples.ndim not in (1, 2) or not samples.size:
        raise AudioError(
            f"an array of {samples.dtype} and shape {list(samples.shape)} is no sound: give [num_samples] or "
            "[num_samples, num_channels] of int16, int32, float32 or float64"
        )
    file = io.BytesIO()
    try:
        soundfile.write(file, np.ascontiguousarray(samples), rate_hz, subtype=subtype, format="WAV")
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        raise AudioError(f"an array with a rate of {rate_hz} Hz is no sound: {error}") from None
    return file.getvalue()


@contextmanager
def _as_file(data: bytes) -> Iterator[Path]:
    """A file that is never on a disk, where the system has such files."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "clip")
            path.write_bytes(data)
            yield path
        return
    with os.fdopen(os.memfd_create("skydraft-clip"), "wb") as file:
        file.write(data)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")
