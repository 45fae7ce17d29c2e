"""Reads a sound file: mono float32 at 16 kHz, or an error of one sentence.

libsndfile decodes WAV, FLAC, Ogg, MP3 and AIFF, and ffmpeg the rest where it is on the PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from skydraft.audio import ffmpeg
from skydraft.audio.containers import Container, Ending, file_size, find_ending, foreign_format, identify
from skydraft.audio.decode import (
    CONVERT,
    COPY_AGAIN,
    MAX_DURATION_S,
    UNKNOWN_FRAMES,
    Library,
    OpenSound,
    check_samples,
    decode,
    notes_of,
)
from skydraft.audio.patched import PatchedFile
from skydraft.audio.samples import SAMPLE_RATE_HZ, Samples, is_silent
from skydraft.audio.silence import silenced_stderr
from skydraft.errors import AudioError

INSTALL = "pip install soundfile soxr"
PATTERN = re.compile(r"[*?[]")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
CENTRE_CHANNELS = range(5, 9)  # from 5.0 to 7.1 speech is in the centre, and music and noise are in the others
CENTRE, CENTRE_IN_OGG = 2, 1  # WAV, FLAC, AIFF and ffmpeg order them so; Ogg: Vorbis I, 4.3.9; RFC 7845, 5.1.1.2


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


class _Source(NamedTuple):
    """A file that is there and begins like sound.

    label: the path in errors: quoted, with unprintable bytes escaped.
    container: None: ffmpeg decodes it.
    """

    path: Path
    label: str
    container: Container | None
    ending: Ending


class _Libraries(NamedTuple):
    soundfile: Library
    soxr: Library


class _Decoded(NamedTuple):
    """note: of how the file ended; None: as it should."""

    sound: OpenSound
    samples: Samples
    note: str | None


def read_clip(path: str | Path, name: str | None = None) -> Clip:
    """Read a sound file of any rate and number of channels: WAV, FLAC, Ogg, MP3, AIFF, and what ffmpeg reads.

    Channels are averaged, but from 5 to 8 (5.1 and its like) the centre is taken, unless it is silent. Another rate is
    resampled.

    Args:
        name: of the recording, where the file is a copy with a name that says nothing.
    Raises:
        AudioError: the file is missing, not audio, cut off, silent, too short, too long or has values that are
            not samples; it needs ffmpeg, and that is not there or fails; or the packages that read audio are not
            installed.
    """
    if ADDRESS.match(str(path)):
        raise AudioError(f"{str(path)!r} is an address and not a file; download it first, and give the file")
    libraries = _libraries()
    path = Path(path)
    source = _inspect(path, name or repr(str(path)))
    sound, samples, note = _read(source, libraries, takes_centre=True)
    if sound.centre is not None and is_silent(samples):
        sound, samples, note = _read(source, libraries, takes_centre=False)
    check_samples(samples, sound)
    notes = notes_of(sound)
    return Clip(name or path.name, samples, notes if note is None else (*notes, note))


def _libraries() -> _Libraries:
    try:
        import soundfile
        import soxr
    except ImportError as error:
        raise AudioError(f"reading audio needs the package {error.name}, which is not installed: {INSTALL}") from None
    except OSError as error:  # soundfile without a wheel for this platform does not find the library
        raise AudioError(f"soundfile cannot load libsndfile ({error}): install it, or {INSTALL}") from None
    return _Libraries(soundfile, soxr)


def _inspect(path: Path, label: str) -> _Source:
    """Find the format and check the length before the decoder opens the file."""
    try:
        if not path.exists():
            raise AudioError(f"{label} does not exist{_of_pattern(path)}; check the path")
        if path.is_dir():
            raise AudioError(f"{label} is a folder; give a sound file, or the folder with -r")
        if not path.is_file():  # opening a pipe would block
            raise AudioError(f"{label} is a pipe or a device, not a file; save the sound to a file first")
        with path.open("rb") as file:
            size = file_size(file)
            if size == 0:
                raise AudioError(f"{label} is empty (0 bytes); {COPY_AGAIN}")
            container = identify(file, path.suffix)
            if container is None:
                file.seek(0)
                head = file.read(12)
                if ffmpeg.find_ffmpeg() is None:
                    raise AudioError(_not_audio(label, head))
                return _Source(path, label, None, Ending())
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
    return _Source(path, label, container, ending)


def _read(source: _Source, libraries: _Libraries, takes_centre: bool) -> _Decoded:
    if source.container is None:
        return _read_by_ffmpeg(source, libraries, takes_centre)
    try:
        return _read_by_libsndfile(source, libraries, takes_centre)
    except libraries.soundfile.LibsndfileError as error:
        raise AudioError(_undecodable(source.label, source.container, error.error_string)) from None


def _read_by_libsndfile(source: _Source, libraries: _Libraries, takes_centre: bool) -> _Decoded:
    quiet = silenced_stderr if source.container is Container.MP3 else nullcontext
    with quiet(), _opened(source) as file, libraries.soundfile.SoundFile(file, closefd=False) as opened:
        # Else soundfile seeks to its position after each read, and an MP3 continues with wrong samples.
        opened.seekable = lambda: False
        frames = int(opened.frames)
        declared_frames = frames if 0 <= frames < UNKNOWN_FRAMES else None
        centre = CENTRE_IN_OGG if source.container is Container.OGG else CENTRE
        is_taken = takes_centre and opened.channels in CENTRE_CHANNELS
        sound = OpenSound(source.label, opened, declared_frames, centre if is_taken else None)
        samples = decode(sound, libraries.soxr)
    return _Decoded(sound, samples, source.ending.note)


def _read_by_ffmpeg(source: _Source, libraries: _Libraries, takes_centre: bool) -> _Decoded:
    path = ffmpeg.find_ffmpeg()
    assert path is not None, "it was there when the file was inspected"
    decoding = ffmpeg.Decoding(path, source.path, MAX_DURATION_S + 1)
    try:
        with decoding as pipe, libraries.soundfile.SoundFile(pipe, closefd=False) as opened:
            opened.seekable = lambda: False
            is_taken = takes_centre and opened.channels in CENTRE_CHANNELS
            sound = OpenSound(source.label, opened, None, CENTRE if is_taken else None)
            samples = decode(sound, libraries.soxr)
    except libraries.soundfile.LibsndfileError:  # ffmpeg has written nothing
        raise AudioError(_undecoded(source, decoding)) from None
    if decoding.has_failed:
        raise AudioError(_undecoded(source, decoding))
    complaint = decoding.complaint
    return _Decoded(sound, samples, f"ffmpeg reports: {complaint}; parts may be missing" if complaint else None)


@contextmanager
def _opened(source: _Source) -> Iterator[PatchedFile | str | bytes | int]:
    """The input of the decoder: the name of the file, the file with a corrected header, or a pipe."""
    path, ending = source.path, source.ending
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


def _of_pattern(path: Path) -> str:
    """What to say where a shell left a pattern as it was."""
    return ": no file matches this pattern, or it stands in quotes" if PATTERN.search(str(path)) else ""


def _not_audio(label: str, head: bytes) -> str:
    name = foreign_format(head)
    if name is not None:
        return f"{label} is {name}, which needs ffmpeg, and none is on the PATH: install it, or {CONVERT}"
    return f"{label} is not a sound file that can be read (it begins with {head!r}); {CONVERT}"


def _undecoded(source: _Source, decoding: ffmpeg.Decoding) -> str:
    """Why ffmpeg gave no sound, or not all of it."""
    label = source.label
    if decoding.is_late:
        return f"{label} took ffmpeg more than {ffmpeg.LIMIT_S:g} s and was given up; convert it to WAV or FLAC first"
    reason = decoding.complaint or "it ended without a word"
    with source.path.open("rb") as file:
        head = file.read(12)
    name = foreign_format(head)
    if name is None:
        return f"{label} is not a sound file that can be read (it begins with {head!r}; ffmpeg: {reason}); {CONVERT}"
    return f"{label} is {name} and cannot be decoded ({reason}): it is damaged or without sound; {COPY_AGAIN}"


def _undecodable(label: str, container: Container, reason: str) -> str:
    # libsndfile reports "File does not exist" for an MP3 without a frame.
    why = "no frame of it was found, or it ends within one" if container is Container.MP3 else reason.rstrip(".")
    return f"{label} cannot be decoded as {container} ({why}): it is damaged or cut off; {COPY_AGAIN}, or {CONVERT}"
