"""Reads a sound file: mono float32 at 16 kHz, or an error of one sentence.

Samples are decoded, checked and resampled block by block, so that the use of memory follows the samples in
the file and not the length in its header.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from skydraft.audio.containers import Container, Ending, file_size, find_ending, foreign_format, identify
from skydraft.audio.patched import PatchedFile
from skydraft.audio.silence import silenced_stderr
from skydraft.errors import AudioError

Samples: TypeAlias = npt.NDArray[np.float32]
Library: TypeAlias = Any  # soundfile and soxr have no types

SAMPLE_RATE_HZ = 16_000
MIN_DURATION_S = 0.1
MAX_DURATION_S = 3600.0
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 384_000
MAX_CHANNELS = 32
SILENCE_DBFS = -60.0
MAX_PEAK = 16.0  # of full scale; more is integers stored as floats
BLOCK_FRAMES = 32_768
UNKNOWN_FRAMES = 2**62  # libsndfile says 2**63 - 1 where it does not know

INSTALL = "pip install soundfile soxr"
CONVERT = "convert it to WAV or FLAC, for example with `ffmpeg -i IN OUT.wav`"
COPY_AGAIN = "record or copy it again"


@dataclass(frozen=True, eq=False)
class Clip:
    """The sound of one file.

    name: the file's name without its folder.
    samples: float32 [num_samples], mono, 16 kHz, full scale 1.
    notes: for the user, one sentence each: what was converted, what could not be checked.
    """

    name: str
    samples: Samples
    notes: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


@dataclass
class _Tally:
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
class _Source:
    """An open sound file, its length checked against its header.

    label: the path in errors: quoted, with unprintable bytes escaped.
    """

    label: str
    sound: Library
    ending: Ending
    tally: _Tally = field(default_factory=_Tally)

    @property
    def rate_hz(self) -> int:
        return int(self.sound.samplerate)

    @property
    def num_channels(self) -> int:
        return int(self.sound.channels)

    @property
    def declared_frames(self) -> int | None:
        """Samples of one channel according to the header; None: it does not say."""
        frames = int(self.sound.frames)
        return frames if 0 <= frames < UNKNOWN_FRAMES else None


def read_clip(path: str | Path) -> Clip:
    """Read a sound file (WAV, FLAC, Ogg, MP3, AIFF) of any rate and number of channels.

    Channels are averaged; another rate is resampled with soxr at its quality "HQ".

    Raises:
        AudioError: the file is missing, not audio, cut off, silent, too short, too long or has values that are
            not samples; or the packages that read audio are not installed.
    """
    soundfile, soxr = _libraries()
    path = Path(path)
    label = repr(str(path))
    container, ending = _inspect(path, label)
    quiet = silenced_stderr if container is Container.MP3 else nullcontext
    with quiet():
        try:
            with _opened(path, ending) as file, soundfile.SoundFile(file, closefd=False) as sound:
                # Else soundfile seeks to its position after each read, and an MP3 continues with wrong samples.
                sound.seekable = lambda: False
                source = _Source(label, sound, ending)
                _check_header(source)
                blocks = [block for block in _resample(source, soxr) if len(block)]
        except soundfile.LibsndfileError as error:
            raise AudioError(_undecodable(label, container, error.error_string)) from None
    _check_decoded(source)
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    _check_samples(samples, source)
    return Clip(path.name, samples, _notes(source))


def swing(samples: Samples) -> float:
    """Half the range of the samples: their peak without a constant offset."""
    return float(np.ptp(samples)) / 2


def is_silent(samples: Samples) -> bool:
    """Whether float [num_samples] has no sound above -60 dBFS."""
    return _dbfs(swing(samples)) < SILENCE_DBFS


def _libraries() -> tuple[Library, Library]:
    try:
        import soundfile
        import soxr
    except ImportError as error:
        raise AudioError(f"reading audio needs the package {error.name}, which is not installed: {INSTALL}") from None
    except OSError as error:  # soundfile without a wheel for this platform does not find the library
        raise AudioError(f"soundfile cannot load libsndfile ({error}): install it, or {INSTALL}") from None
    return soundfile, soxr


def _inspect(path: Path, label: str) -> tuple[Container, Ending]:
    """Find the format and check the length before the decoder opens the file."""
    try:
        if not path.exists():
            raise AudioError(f"{label} does not exist; check the path")
        if path.is_dir():
            raise AudioError(f"{label} is a folder; give a sound file")
        if not path.is_file():  # opening a pipe would block
            raise AudioError(f"{label} is a pipe or a device, not a file; save the sound to a file first")
        with path.open("rb") as file:
            size = file_size(file)
            if size == 0:
                raise AudioError(f"{label} is empty (0 bytes); {COPY_AGAIN}")
            container = identify(file, path.suffix)
            if container is None:
                file.seek(0)
                raise AudioError(_not_audio(label, file.read(12)))
            ending = find_ending(file, container)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{label} cannot be opened ({reason}); check the path and its permissions") from None
    if ending.is_cut:
        raise AudioError(
            f"{label} is cut off: its {size:,} bytes end in the middle of a frame of {container}; {COPY_AGAIN}"
        )
    if path.suffix.lower() == ".raw":  # soundfile looks at this suffix and not at the contents
        raise AudioError(
            f"{label} is {container} with the suffix of headerless audio; rename it to .{container.lower()}"
        )
    return container, ending


@contextmanager
def _opened(path: Path, ending: Ending) -> Iterator[PatchedFile | str | bytes | int]:
    """The input of the decoder: the name of the file, the file with a corrected header, or a pipe."""
    if ending.patch is not None:
        with path.open("rb") as file, PatchedFile(file, ending.patch) as patched:
            yield patched
    elif os.name == "nt":  # where soundfile takes no pipe; an MP3 without a length tag may then end too soon
        yield str(path)
    elif ending.is_stream:
        with _piped(path) as pipe:
            yield pipe
    else:
        yield os.fsencode(path)  # soundfile cannot encode a name that is not valid UTF-8


@contextmanager
def _piped(path: Path) -> Iterator[int]:
    """The reading end of a pipe that delivers the contents of a file."""
    reading, writing = os.pipe()

    def feed() -> None:
        # The decoder may stop before the end, and notices where less comes than the header of a frame says.
        with suppress(OSError), open(writing, "wb") as pipe, path.open("rb") as file:
            shutil.copyfileobj(file, pipe)

    feeding = threading.Thread(target=feed, daemon=True, name="skydraft-audio")
    feeding.start()
    try:
        yield reading
    finally:
        os.close(reading)
        feeding.join()


def _not_audio(label: str, head: bytes) -> str:
    name = foreign_format(head)
    what = (
        f"is {name}, which is not read" if name else f"is not a sound file that can be read (it begins with {head!r})"
    )
    return f"{label} {what}; {CONVERT}"


def _undecodable(label: str, container: Container, reason: str) -> str:
    # libsndfile reports "File does not exist" for an MP3 without a frame.
    why = "no frame of it was found, or it ends within one" if container is Container.MP3 else reason.rstrip(".")
    return f"{label} cannot be decoded as {container} ({why}): it is damaged or cut off; {COPY_AGAIN}, or {CONVERT}"


def _check_header(source: _Source) -> None:
    """Refuse a header that no recording of speech has."""
    label, rate_hz = source.label, source.rate_hz
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise AudioError(
            f"{label} has a sample rate of {rate_hz:,} Hz in its header; supported are {MIN_RATE_HZ:,} to "
            f"{MAX_RATE_HZ:,} Hz; {CONVERT}"
        )
    if source.num_channels > MAX_CHANNELS:
        raise AudioError(f"{label} has {source.num_channels} channels; at most {MAX_CHANNELS} are supported; {CONVERT}")
    declared_s = (source.declared_frames or 0) / rate_hz
    if declared_s > MAX_DURATION_S:
        raise AudioError(_too_long(label, f"lasts {declared_s:,.0f} s by its header"))


def _too_long(label: str, what: str) -> str:
    return f"{label} {what}, above the limit of {MAX_DURATION_S:,.0f} s; cut it into shorter clips"


def _decode(source: _Source) -> Iterator[Samples]:
    """Decode, count and mix down to mono; blocks with values that are not finite are counted and left out."""
    while len(block := source.sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        num_bad = source.tally.num_bad
        source.tally.add(block)
        if source.tally.num_frames > MAX_DURATION_S * source.rate_hz:
            raise AudioError(_too_long(source.label, "has more sound than its header says"))
        if source.tally.num_bad == num_bad:
            yield block.mean(axis=1, dtype=np.float64).astype(np.float32)


def _resample(source: _Source, soxr: Library) -> Iterator[Samples]:
    """Resample the mono blocks to 16 kHz; a source with this rate passes unchanged, bit for bit."""
    if source.rate_hz == SAMPLE_RATE_HZ:
        yield from _decode(source)
        return
    stream = soxr.ResampleStream(source.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    for block in _decode(source):
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _check_decoded(source: _Source) -> None:
    """Compare the decoded samples with the header."""
    label, tally, declared = source.label, source.tally, source.declared_frames
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


def _check_samples(samples: Samples, source: _Source) -> None:
    """Refuse a clip that cannot contain speech."""
    label, peak, duration_s = source.label, source.tally.peak, source.tally.num_frames / source.rate_hz
    if duration_s < MIN_DURATION_S or not len(samples):
        raise AudioError(f"{label} lasts {duration_s:.3f} s and at least {MIN_DURATION_S:g} s are needed; record more")
    if peak > MAX_PEAK:
        raise AudioError(
            f"{label} has samples up to {peak:,.0f} where full scale is 1: integers were stored as floats; divide them "
            "by 32768, or by the full scale of their width, and save it again"
        )
    if is_silent(samples):
        raise AudioError(f"{label} is silent: {_silence(samples, peak)}")


def _silence(samples: Samples, peak: float) -> str:
    level = f"its peak is {_dbfs(swing(samples)):.0f} dBFS and the limit {SILENCE_DBFS:.0f}"
    if _dbfs(peak) < SILENCE_DBFS:
        return f"{level}; check the microphone and record again"
    return (
        f"{level}, though single samples reach {_dbfs(peak):.0f}: its channels cancel each other, or it has only a "
        "constant or sounds above 8 kHz; keep one channel, or record again"
    )


def _dbfs(magnitude: float) -> float:
    """Decibels below full scale; digital zero counts as -120."""
    return 20 * float(np.log10(max(magnitude, 1e-6)))


def _notes(source: _Source) -> tuple[str, ...]:
    notes = []
    if source.rate_hz != SAMPLE_RATE_HZ:
        notes.append(f"resampled from {source.rate_hz:,} Hz to {SAMPLE_RATE_HZ:,} Hz")
    if source.num_channels > 1:
        notes.append(f"{source.num_channels} channels averaged to one")
    if source.tally.peak > 1:
        notes.append(f"peak {source.tally.peak:.2f} is above full scale")
    if source.ending.note:
        notes.append(source.ending.note)
    return tuple(notes)
