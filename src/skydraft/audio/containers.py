"""What kind of file a clip is, and whether the file ends where its header says.

libsndfile shortens a cut WAV, AIFF or Ogg file in silence, stops in the middle of some MP3 files and tries exotic
formats on anything; so the first bytes and the lengths are looked at here before it is asked.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from skydraft.audio.mpeg import has_length_tag, is_mpeg_header, walk_frames


class Container(enum.StrEnum):
    """The kinds of file that are read."""

    WAV = "WAV"
    AIFF = "AIFF"
    FLAC = "FLAC"
    OGG = "Ogg"
    MP3 = "MP3"


class Ending(NamedTuple):
    """How a file ends, compared with what its header says.

    missing_bytes: how many it lacks; for Ogg and MP3, whose header does not count bytes, 1 stands for some.
    num_frames: samples of one channel, where they were counted here; None: they were not.
    note: for the user, where the header says nothing.
    """

    missing_bytes: int = 0
    num_frames: int | None = None
    note: str | None = None


class _Chunk(NamedTuple):
    """A RIFF or AIFF chunk: its contents are `length` bytes from `start`."""

    name: bytes
    start: int
    length: int


STREAM_BYTES = 0x7FFF0000  # from here on a length is what tools write that do not know it (a WAV through a pipe)
SLACK_BYTES = 64  # some recorders count the header, 44 bytes and more, as samples
MAX_CHUNKS = 1024  # real files have fewer than 20; a hostile one could have millions
MAX_OGG_PAGE_BYTES = 65307  # 27 + 255 + 255 * 255
LENGTH_TAG_BYTES = 4096  # a Xing or Info tag stands in the first MPEG frame
UNKNOWN_LENGTH = "its header does not say how long it is, so a missing end would not be noticed"


def identify(file: BinaryIO, suffix: str) -> Container | None:
    """Tell the kind of a file by its first bytes; by the suffix only for an MP3, which may begin with anything."""
    start = _id3_length(file)
    file.seek(start)
    head = file.read(16)
    match head[:4], head[8:12]:
        case (b"RIFF" | b"RIFX" | b"RF64", b"WAVE"):
            return Container.WAV
        case (b"FORM", b"AIFF" | b"AIFC"):
            return Container.AIFF
        case b"fLaC", _:
            return Container.FLAC
        case b"OggS", _:
            return Container.OGG
    is_mp3 = is_mpeg_header(head) or suffix.lower() == ".mp3" or start > 0
    return Container.MP3 if is_mp3 and not foreign_format(head) else None


def foreign_format(head: bytes) -> str | None:
    """Name a format that people have and that is not read."""
    if head[4:8] == b"ftyp":
        return "MPEG-4 audio (m4a, mp4)"
    known = {
        b"\x1a\x45\xdf\xa3": "WebM or Matroska",
        b"0&\xb2u": "Windows Media",
        b"#!AM": "AMR",
        b"caff": "Core Audio",
    }
    is_aac = head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0
    return "AAC" if is_aac else known.get(head[:4])


def find_ending(file: BinaryIO, container: Container) -> Ending:
    """Compare where a file ends with what its header says.

    FLAC is not looked at: its decoder notices.
    """
    match container:
        case Container.WAV:
            return _riff_ending(file, b"data")
        case Container.AIFF:
            return _riff_ending(file, b"SSND")
        case Container.OGG:
            return _ogg_ending(file)
        case Container.MP3:
            return _mp3_ending(file)
        case Container.FLAC:
            return Ending()


def file_size(file: BinaryIO) -> int:
    """Bytes in an open file."""
    return file.seek(0, os.SEEK_END)


def _riff_ending(file: BinaryIO, samples_chunk: bytes) -> Ending:
    size = file_size(file)
    for chunk in _chunks(file):
        if chunk.name == samples_chunk:
            missing_bytes = max(0, chunk.start + chunk.length - size)
            if missing_bytes and chunk.length >= STREAM_BYTES:
                return Ending(note=UNKNOWN_LENGTH)
            return Ending(missing_bytes if missing_bytes > SLACK_BYTES else 0)
    return Ending()  # no samples at all: the decoder says so


def _chunks(file: BinaryIO) -> Iterator[_Chunk]:
    """Walk the chunks; those of RIFF are little-endian, of RIFX and AIFF big-endian."""
    file.seek(0)
    byte_order = "<" if file.read(4) in (b"RIFF", b"RF64") else ">"
    long_length: int | None = None  # of an RF64's samples, whose own 32 bits are all ones
    start = 12
    for _ in range(MAX_CHUNKS):
        file.seek(start)
        header = file.read(8)
        if len(header) < 8:
            return
        name, length = struct.unpack(f"{byte_order}4sI", header)
        if name == b"ds64":
            long_length = _rf64_length(file.read(16))
        if name == b"data" and long_length is not None and length == 0xFFFFFFFF:
            length = long_length
        yield _Chunk(name, start + 8, length)
        start += 8 + length + length % 2


def _rf64_length(ds64: bytes) -> int | None:
    return struct.unpack("<QQ", ds64)[1] if len(ds64) == 16 else None


def _ogg_ending(file: BinaryIO) -> Ending:
    """Look at the last page: it must be whole, and should bear the end-of-stream flag. Source: RFC 3533, section 6."""
    size = file_size(file)
    tail_start = max(0, size - 2 * MAX_OGG_PAGE_BYTES)
    file.seek(tail_start)
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    num_segments = page[26] if len(page) > 26 else 255
    page_bytes = 27 + num_segments + sum(page[27 : 27 + num_segments])
    if len(page) < page_bytes:
        return Ending(missing_bytes=1)
    return Ending() if page[5] & 4 else Ending(note="its last page is not marked as the end: the end may be missing")


def _mp3_ending(file: BinaryIO) -> Ending:
    """Count the frames of a file without a length tag: the decoder guesses from the first frame and stops there."""
    start = _id3_length(file)
    file.seek(start)
    if has_length_tag(file.read(LENGTH_TAG_BYTES)):
        return Ending()
    frames = walk_frames(file, start)
    return Ending(missing_bytes=int(frames.is_cut), num_frames=frames.num_samples)


def _id3_length(file: BinaryIO) -> int:
    """Bytes of an ID3v2 tag at the beginning: its length is four bytes of seven bits. Source: id3.org, ID3v2.4, 3.1."""
    file.seek(0)
    head = file.read(10)
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    length = 0
    for byte in head[6:10]:
        length = length << 7 | byte & 0x7F
    return 10 + length
