"""What a person names to be captioned: files, folders of them, standard input."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from skydraft.audio.read import Clip, read_clip
from skydraft.errors import AudioError, ConfigError

STDIN, STDIN_NAME = "-", "standard input"
MAX_STDIN_BYTES = 2**31
CHUNK_BYTES = 2**20
OF_SOUND = "aac ac3 aif aifc aiff amr au caf flac m4a m4b mka mp3 oga ogg opus w64 wav wma"
OF_FILM = "3g2 3gp avi m4v mkv mov mp4 mpeg mpg ogv webm wmv"
SUFFIXES = frozenset(f".{suffix}" for suffix in f"{OF_SOUND} {OF_FILM}".split())


def find_recordings(named: Sequence[str], is_recursive: bool) -> list[str]:
    """The files to read, in order: what is named, folders replaced by the files of sound and film below them.

    Hidden files and folders and links to folders are left out.

    Raises:
        ConfigError: a folder cannot be read or has none, or standard input is named twice.
    """
    if named.count(STDIN) > 1:
        raise ConfigError(f"standard input ({STDIN}) is named {named.count(STDIN)} times and can be read once")
    files: list[str] = []
    for name in named:
        files += _below(name) if is_recursive and Path(name).is_dir() else [name]
    return files


def read_recording(file: str) -> Clip:
    """Read a file, or standard input for `-`.

    Raises:
        AudioError: as `read_clip`; there is more on standard input than is taken.
        ConfigError: standard input is a terminal.
    """
    if file != STDIN:
        return read_clip(file)  # a Path would make one slash of the two in an address
    if sys.stdin.isatty():
        raise ConfigError("standard input is a terminal: pipe a sound file into it, or name one")
    with _copied(sys.stdin.buffer) as path:
        return read_clip(path, STDIN_NAME)


def stem_of(file: str) -> str:
    """What the file of its captions is called, without the suffix."""
    return "stdin" if file == STDIN else Path(file).stem


def _below(folder: str) -> list[str]:
    def refuse(error: OSError) -> None:
        raise ConfigError(f"the folder {str(error.filename)!r} cannot be read ({error.strerror}): leave it out")

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.join(parent, name)
            for name in sorted(files)
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
    if not found:
        raise ConfigError(f"no file of sound or film is below the folder {folder!r}: name another")
    return found


@contextmanager
def _copied(stream: BinaryIO) -> Iterator[Path]:
    """A file with all that comes: whether a sound is whole shows at its end."""
    with tempfile.TemporaryDirectory(prefix="skydraft-") as folder:
        path, num_bytes = Path(folder) / "stdin", 0
        with path.open("wb") as file:
            while chunk := stream.read(CHUNK_BYTES):
                num_bytes += len(chunk)
                if num_bytes > MAX_STDIN_BYTES:
                    raise AudioError(f"{STDIN_NAME} has more than {MAX_STDIN_BYTES:,} bytes; give a part of it")
                file.write(chunk)
        yield path
