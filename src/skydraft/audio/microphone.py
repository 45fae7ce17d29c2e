"""Sound as it comes: from the microphone, or from a recording in its place."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import numpy as np

from skydraft.audio.read import Clip
from skydraft.audio.samples import SAMPLE_RATE_HZ, Samples
from skydraft.errors import AudioError

Source: TypeAlias = AbstractContextManager[Iterator[Samples]]  # blocks of float32 [num_samples], 16 kHz mono

INSTALL = "pip install 'skydraft[microphone]'"
BLOCK_S = 0.1
MAX_WAITING_S = 60.0  # of sound that nobody has taken yet


@contextmanager
def microphone(
    name: str | None = None, on_loss: Callable[[float], None] = lambda lost_s: None
) -> Iterator[Iterator[Samples]]:
    """Open a microphone; what it hears is kept for a minute until it is taken.

    Args:
        name: of the device, a part of its name or its number; None: the system's default.
        on_loss: told the seconds that came in too fast to be kept. In their place comes silence, so that times stay
            right.
    Yields:
        The blocks, without end until the context is left.
    Raises:
        AudioError: sounddevice or PortAudio is not installed, or there is no such device, or it cannot be opened.
    """
    sounddevice, soxr = _libraries()
    device = int(name) if name is not None and name.isdecimal() else name
    waiting: queue.Queue[Samples | None] = queue.Queue()
    try:
        rate_hz = _rate_hz(sounddevice, device)
        most = round(MAX_WAITING_S / BLOCK_S)

        def take(block: Samples, num_frames: int, times: object, status: object) -> None:
            waiting.put(block[:, 0].copy() if waiting.qsize() < most else np.zeros(0, np.float32))

        with sounddevice.InputStream(
            rate_hz, round(BLOCK_S * rate_hz), device, channels=1, dtype="float32", callback=take
        ):
            yield _blocks(waiting, soxr, rate_hz, on_loss)
    except (sounddevice.PortAudioError, ValueError) as error:  # ValueError: no device has this name
        raise AudioError(f"the microphone cannot be opened ({error}): {_ways_out(sounddevice)}") from None
    finally:
        waiting.put(None)


@contextmanager
def recording(clip: Clip) -> Iterator[Iterator[Samples]]:
    """A recording in the place of a microphone, as fast as it is taken."""
    length = round(BLOCK_S * SAMPLE_RATE_HZ)
    yield (clip.samples[start : start + length] for start in range(0, len(clip.samples), length))


def _libraries() -> tuple[Any, Any]:
    try:
        import sounddevice
        import soxr
    except ImportError as error:
        raise AudioError(f"listening needs the package {error.name}, which is not installed: {INSTALL}") from None
    except OSError as error:
        raise AudioError(f"{error}: install PortAudio, for example with `apt install libportaudio2`") from None
    return sounddevice, soxr


def _rate_hz(sounddevice: Any, device: int | str | None) -> int:
    """16 kHz where the device can; else its own."""
    try:
        sounddevice.check_input_settings(device, channels=1, dtype="float32", samplerate=SAMPLE_RATE_HZ)
    except sounddevice.PortAudioError:
        return int(sounddevice.query_devices(device, "input")["default_samplerate"])
    return SAMPLE_RATE_HZ


def _blocks(
    waiting: queue.Queue[Samples | None], soxr: Any, rate_hz: int, on_loss: Callable[[float], None]
) -> Iterator[Samples]:
    stream = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    lost, length = 0, round(BLOCK_S * rate_hz)
    while (block := waiting.get()) is not None:
        if not len(block):
            lost += 1
            block = np.zeros(length, np.float32)
        elif lost:
            on_loss(lost * BLOCK_S)
            lost = 0
        yield block if rate_hz == SAMPLE_RATE_HZ else stream.resample_chunk(block)


def _ways_out(sounddevice: Any) -> str:
    """Microphones that are there."""
    names = [device["name"] for device in sounddevice.query_devices() if device["max_input_channels"]]
    return f"name another with --microphone, of {', '.join(names)}" if names else "connect one"
