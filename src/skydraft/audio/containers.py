"""The format of a sound file, and whether it ends where its header says.

libsndfile shortens a cut Ogg file, and reads a WAV or AIFF file as far as its header says, without an error; it guesses
the length of an MP3 without a length tag, and tries exotic formats on anything. So the first bytes and the lengths are
checked here before it opens a file. (Nor does mutagen tell whether the last page of an Ogg file is whole.)
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple


class Container(enum.StrEnum):
    """The formats that are read."""

    WAV = "WAV"
    AIFF = "AIFF"
    FLAC = "FLAC"
    OGG = "Ogg"
    MP3 = "MP3"


class Patch(NamedTuple):
    """Bytes to read in place of those from `start`."""

    start: int
    data: bytes


class Ending(NamedTuple):
    """How the end of a file compares with its header.

    is_cut: it ends within something that cannot be read in part.
    note: for the user, if the header has no length or a wrong one.
    patch: corrects a length in the header that is too small: the decoder would stop too soon.
    is_stream: the decoder must not see the length of the file: it would guess from it and might stop too soon.
    """

    is_cut: bool = False
    note: str | None = None
    patch: Patch | None = None
    is_stream: bool = False


class _Chunk(NamedTuple):
    """A RIFF or AIFF chunk: its contents are `length` bytes from `start`.

    field: position of the length. field_bytes: its size.
    """

    name: bytes
    start: int
    length: int
    field: int
    field_bytes: int = 4


STREAM_BYTES = 0x7FFF0000  # tools that do not know the length (of a WAV through a pipe) write this or more
SLACK_BYTES = 64  # some recorders count the header (44 bytes or more) as samples
# The beginnings of what follows the samples: the usual chunks, and what players append without a chunk.
TRAILERS = (b"LIST", b"id3 ", b"bext", b"iXML", b"cue ", b"_PMX", b"TAG", b"ID3", b"APETAGEX")
MAX_CHUNKS = 1024  # real files have fewer than 20; a malicious one could have millions
MAX_OGG_PAGE_BYTES = 65307  # 27 + 255 + 255 * 255
LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")  # one of them in the first frame of an MP3 says how many follow
FIRST_FRAME_BYTES = 4096
UNKNOWN_LENGTH = "its header does not say how long it is, so a missing end would not be noticed"


def identify(file: BinaryIO, suffix: str) -> Container | None:
    """Recognise a format by the first bytes; MP3, which may begin with anything, by the suffix too."""
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
    is_mp3 = _is_mp3_frame(head) or suffix.lower() == ".mp3" or start > 0
    return Container.MP3 if is_mp3 and not foreign_format(head) else None


def foreign_format(head: bytes) -> str | None:
    """Name a common format that ffmpeg is needed for."""
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
    """Compare the end of a file with its header.

    Not of FLAC, whose decoder notices a missing end.
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
    """Size of an open file in bytes."""
    return file.seek(0, os.SEEK_END)


def _riff_ending(file: BinaryIO, samples_chunk: bytes) -> Ending:
    """Compare the stated length of the samples with the file: a killed recorder leaves 0 or an old length."""
    size = file_size(file)
    chunk = next((chunk for chunk in _chunks(file, 12) if chunk.name == samples_chunk), None)
    if chunk is None:  # no samples: the decoder reports it
        return Ending()
    there = max(0, size - chunk.start)
    note = f"its header counts {chunk.length:,} bytes of sound and {there:,} are there: all of these were read"
    if chunk.length > there:
        is_unstated = chunk.length >= STREAM_BYTES
        return Ending(note=UNKNOWN_LENGTH if is_unstated else note if chunk.length > there + SLACK_BYTES else None)
    if there - chunk.length <= SLACK_BYTES or not _goes_on(file, chunk):
        return Ending()
    most = 2 ** (8 * chunk.field_bytes) - 1
    data = min(there, most).to_bytes(chunk.field_bytes, "little" if _is_little_endian(file) else "big")
    return Ending(note=note, patch=Patch(chunk.field, data))


def _goes_on(file: BinaryIO, samples: _Chunk) -> bool:
    """Whether sound follows the stated end of the samples, and not chunks, tags or padding."""
    size, stated_end = file_size(file), samples.start + samples.length
    file.seek(stated_end)
    head = file.read(9)
    if head.startswith(TRAILERS) or head[1:].startswith(TRAILERS):  # with or without the padding of odd lengths
        return False
    start = end = stated_end + samples.length % 2
    for chunk in _chunks(file, start):
        if not chunk.name.isascii() or not chunk.name.decode().isprintable():
            break
        end = chunk.start + chunk.length
    if start < end <= size <= end + SLACK_BYTES:
        return False
    file.seek(start)
    return any(map(any, iter(lambda: file.read(2**20), b"")))


def _is_little_endian(file: BinaryIO) -> bool:
    """True for RIFF, False for RIFX and AIFF."""
    file.seek(0)
    return file.read(4) in (b"RIFF", b"RF64")


def _chunks(file: BinaryIO, start: int) -> Iterator[_Chunk]:
    """Walk the chunks from byte `start`."""
    byte_order = "<" if _is_little_endian(file) else ">"
    long: _Chunk | None = None  # length of the samples in an RF64, where the 32 bits of the data chunk are all ones
    for _ in range(MAX_CHUNKS):
        file.seek(start)
        header = file.read(8)
        if len(header) < 8:
            return
        name, length = struct.unpack(f"{byte_order}4sI", header)
        chunk = _Chunk(name, start + 8, length, start + 4)
        if name == b"ds64":
            long = _long_length(file, chunk.start)
        if name == b"data" and long is not None and length == 0xFFFFFFFF:
            chunk = chunk._replace(length=long.length, field=long.field, field_bytes=long.field_bytes)
        yield chunk
        start = chunk.start + chunk.length + chunk.length % 2


def _long_length(file: BinaryIO, start: int) -> _Chunk | None:
    """Read the 64-bit length of the samples from a ds64 chunk."""
    file.seek(start)
    ds64 = file.read(16)
    return _Chunk(b"data", 0, struct.unpack("<QQ", ds64)[1], start + 8, 8) if len(ds64) == 16 else None


def _ogg_ending(file: BinaryIO) -> Ending:
    """Check that the last page is whole and has the end-of-stream flag. Source: RFC 3533, section 6."""
    size = file_size(file)
    tail_start = max(0, size - 2 * MAX_OGG_PAGE_BYTES)
    file.seek(tail_start)
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    num_segments = page[26] if len(page) > 26 else 255
    page_bytes = 27 + num_segments + sum(page[27 : 27 + num_segments])
    if len(page) < page_bytes:
        return Ending(is_cut=True)
    return Ending() if page[5] & 4 else Ending(note="its last page is not marked as the end: the end may be missing")


def _mp3_ending(file: BinaryIO) -> Ending:
    """Look for a length tag. Without one, the decoder takes all frames to be as long as the first and stops early."""
    file.seek(_id3_length(file))
    head = file.read(FIRST_FRAME_BYTES)
    if any(tag in head for tag in LENGTH_TAGS):
        return Ending()
    return Ending(note=UNKNOWN_LENGTH, is_stream=_is_mp3_frame(head))  # it finds no frame behind junk in a stream


def _is_mp3_frame(head: bytes) -> bool:
    """Whether a frame of layer III may begin here: eleven bits of ones, two of version, 01. Source: ISO/IEC 11172-3."""
    return len(head) >= 4 and head[0] == 0xFF and head[1] & 0b11100110 == 0b11100010


def _id3_length(file: BinaryIO) -> int:
    """Size of an ID3v2 tag at the beginning; its length is four bytes of seven bits. Source: id3.org, ID3v2.4, 3.1."""
    file.seek(0)
    head = file.read(10)
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    length = 0
    for byte in head[6:10]:
        length = length << 7 | byte & 0x7F
    return 10 + length
