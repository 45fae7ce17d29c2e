"""From an open sound file to mono samples at 16 kHz, checked: block by block, so that the use of memory follows the
samples in the file and not the length in its header.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from skydraft.audio.samples import SAMPLE_RATE_HZ, SILENCE_DBFS, Samples, dbfs, is_silent, swing
from skydraft.errors import AudioError, SilentAudio

Library: TypeAlias = Any  # soundfile and soxr have no types

MIN_DURATION_S = 0.1
MAX_DURATION_S = 3600.0
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 384_000
MAX_CHANNELS = 32
MAX_PEAK = 16.0  # of full scale; more is integers stored as floats
BLOCK_FRAMES = 32_768
UNKNOWN_FRAMES = 2**62  # libsndfile says 2**63 - 1 where it does not know

CONVERT = "convert it to WAV or FLAC, for example with `ffmpeg -i IN OUT.wav`"
COPY_AGAIN = "record or copy it again"


@dataclass
class Tally:
    """What is seen on the way through a file.

    num_frames: samples of one channel. num_values: of all channels. num_bad: NaN or infinite ones.
    peak: largest magnitude in any channel, of full scale.
    """

    num_frames: int = 0
    num_values: int = 0
    num_bad: int = 0
    peak: float = 0.0

    def add(self, block: Samples) -> None:
        is_good = np.isfinite(block)
        self.num_frames += len(block)
        self.num_values += block.size
        self.num_bad += block.size - int(is_good.sum())
        self.peak = max(self.peak, float(np.abs(block, where=is_good, out=np.zeros_like(block)).max()))


@dataclass(frozen=True)
class OpenSound:
    """An open sound file.

    label: how errors call it.
    file: as soundfile opened it.
    declared_frames: samples of one channel according to the header; None: it does not say.
    centre: the channel that is taken; None: all are averaged.
    """

    label: str
    file: Library
    declared_frames: int | None
    centre: int | None = None
    tally: Tally = field(default_factory=Tally)

    @property
    def rate_hz(self) -> int:
        return int(self.file.samplerate)

    @property
    def num_channels(self) -> int:
        return int(self.file.channels)


def decode(sound: OpenSound, soxr: Library) -> Samples:
    """All samples of a file, mixed to mono and resampled with soxr at its quality "HQ".

    Raises:
        AudioError: its header is not of a recording of speech, or not that of what follows; or it is too long.
        soundfile.LibsndfileError: it cannot be decoded.
    """
    _check_header(sound)
    blocks = [block for block in _resample(sound, soxr) if len(block)]
    _check_decoded(sound)
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _check_header(sound: OpenSound) -> None:
    """Refuse a header that no recording of speech has."""
    label, rate_hz = sound.label, sound.rate_hz
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise AudioError(
            f"{label} has a sample rate of {rate_hz:,} Hz in its header; supported are {MIN_RATE_HZ:,} to "
            f"{MAX_RATE_HZ:,} Hz; {CONVERT}"
        )
    if sound.num_channels > MAX_CHANNELS:
        raise AudioError(f"{label} has {sound.num_channels} channels; at most {MAX_CHANNELS} are supported; {CONVERT}")
    declared_s = (sound.declared_frames or 0) / rate_hz
    if declared_s > MAX_DURATION_S:
        raise AudioError(_too_long(label, f"lasts {declared_s:,.0f} s by its header"))


def _too_long(label: str, what: str) -> str:
    return f"{label} {what}, above the limit of {MAX_DURATION_S:,.0f} s; cut it into shorter clips"


def _decode(sound: OpenSound) -> Iterator[Samples]:
    """Decode, count and mix down to mono; blocks with values that are not finite are counted and left out."""
    while len(block := sound.file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        num_bad = sound.tally.num_bad
        sound.tally.add(block)
        if sound.tally.num_frames > MAX_DURATION_S * sound.rate_hz:
            raise AudioError(_too_long(sound.label, "has more sound than its header says"))
        if sound.tally.num_bad == num_bad:
            yield _mono(block, sound.centre)


def _mono(block: Samples, centre: int | None) -> Samples:
    """float32 [num_frames, num_channels] to [num_frames]."""
    if centre is not None:
        return np.ascontiguousarray(block[:, centre])
    mean: Samples = block.mean(axis=1, dtype=np.float64).astype(np.float32)
    return mean


def _resample(sound: OpenSound, soxr: Library) -> Iterator[Samples]:
    """Resample the mono blocks to 16 kHz; a sound with this rate passes unchanged, bit for bit."""
    if sound.rate_hz == SAMPLE_RATE_HZ:
        yield from _decode(sound)
        return
    stream = soxr.ResampleStream(sound.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    for block in _decode(sound):
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _check_decoded(sound: OpenSound) -> None:
    """Compare the decoded samples with the header."""
    label, tally, declared = sound.label, sound.tally, sound.declared_frames
    if tally.num_frames == 0:
        raise AudioError(f"{label} has a header but no samples, like an unfinished recording; {COPY_AGAIN}")
    if declared is not None and tally.num_frames < declared:
        raise AudioError(
            f"{label} is cut off: its header says {declared:,} samples and it has {tally.num_frames:,}; {COPY_AGAIN}"
        )
    if tally.num_bad:
        raise AudioError(
            f"{label} is damaged: {tally.num_bad:,} of its {tally.num_values:,} samples are NaN or infinite; "
            "write it again from its source"
        )


def check_samples(samples: Samples, sound: OpenSound) -> None:
    """Refuse a clip that cannot contain speech."""
    label, peak, duration_s = sound.label, sound.tally.peak, sound.tally.num_frames / sound.rate_hz
    if duration_s < MIN_DURATION_S or not len(samples):
        raise AudioError(f"{label} lasts {duration_s:.3f} s and at least {MIN_DURATION_S:g} s are needed; record more")
    if peak > MAX_PEAK:
        raise AudioError(
            f"{label} has samples up to {peak:,.0f} where full scale is 1: integers were stored as floats; divide them "
            "by 32768, or by the full scale of their width, and save it again"
        )
    if is_silent(samples):
        raise SilentAudio(f"{label} is silent: {_silence(samples, peak)}")


def _silence(samples: Samples, peak: float) -> str:
    level = f"its peak is {dbfs(swing(samples)):.0f} dBFS and the limit {SILENCE_DBFS:.0f}"
    if dbfs(peak) < SILENCE_DBFS:
        return f"{level}; check the microphone and record again"
    return (
        f"{level}, though single samples reach {dbfs(peak):.0f}: its channels cancel each other, or it has only a "
        "constant or sounds above 8 kHz; keep one channel, or record again"
    )


def notes_of(sound: OpenSound) -> tuple[str, ...]:
    """What was converted, in words for the user."""
    notes: list[str] = []
    if sound.rate_hz != SAMPLE_RATE_HZ:
        notes.append(f"resampled from {sound.rate_hz:,} Hz to {SAMPLE_RATE_HZ:,} Hz")
    if sound.centre is not None:
        notes.append(f"of {sound.num_channels} channels the centre was taken")
    elif sound.num_channels > 1:
        notes.append(f"{sound.num_channels} channels averaged to one")
    if sound.tally.peak > 1:
        notes.append(f"peak {sound.tally.peak:.2f} is above full scale")
    return tuple(notes)
