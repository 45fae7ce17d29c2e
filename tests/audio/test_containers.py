from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from skydraft.audio.containers import MAX_CHUNKS, Container, Ending, find_ending, foreign_format, identify
from tests.audio.sounds import pcm16, pcm_wav, tone, write

ID3 = b"ID3\x04\x00\x00\x00\x00\x01\x01" + bytes(129)  # a tag of 1 * 128 + 1 bytes


def kind(head: bytes, suffix: str = "") -> Container | None:
    return identify(io.BytesIO(head), suffix)


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"RIFF\0\0\0\0WAVE", Container.WAV),
        (b"RIFX\0\0\0\0WAVE", Container.WAV),
        (b"RF64\0\0\0\0WAVE", Container.WAV),
        (b"FORM\0\0\0\0AIFF", Container.AIFF),
        (b"FORM\0\0\0\0AIFC", Container.AIFF),
        (b"fLaC\0\0\0\x22", Container.FLAC),
        (b"OggS\0\x02", Container.OGG),
        (b"\xff\xfb\x90\x64", Container.MP3),
        (ID3 + b"\xff\xfb\x90\x64", Container.MP3),
        (ID3 + b"fLaC", Container.FLAC),
        (b"RIFF\0\0\0\0AVI ", None),
        (b"\xff\xfeT\0e\0x\0t\0", None),  # UTF-16 text
        (b"\xff\xf1\x50\x80", None),  # AAC
        (b"", None),
    ],
)
def test_a_file_is_known_by_its_first_bytes(head: bytes, container: Container | None) -> None:
    assert kind(head) is container


def test_a_long_tag_is_passed_by() -> None:
    """Its length is four bytes of seven bits."""
    tag = b"ID3\x04\x00\x00" + bytes([1, 1, 1, 1]) + bytes(2**21 + 2**14 + 2**7 + 1)
    assert kind(tag + b"fLaC") is Container.FLAC


def test_only_mp3_is_believed_by_its_name() -> None:
    assert kind(b"junk before the first frame", ".MP3") is Container.MP3
    assert kind(b"junk before the first frame", ".wav") is None
    assert kind(b"\0\0\0\x20ftypM4A ", ".mp3") is None


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x20ftypM4A ", "MPEG-4 audio (m4a, mp4)"),
        (b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
        (b"\xff\xf1\x50\x80", "AAC"),
        (b"#!AMR\n", "AMR"),
        (b"hello", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_formats_that_people_have_are_named(head: bytes, name: str | None) -> None:
    assert foreign_format(head) == name


@pytest.mark.parametrize(("lacking", "is_noted"), [(0, False), (1, False), (64, False), (65, True), (10_000, True)])
def test_a_wav_that_lacks_what_its_header_counts_beyond_a_little_slack_is_noted(lacking: int, is_noted: bool) -> None:
    contents = pcm_wav(pcm16(tone()))
    ending = find_ending(io.BytesIO(contents[: len(contents) - lacking]), Container.WAV)
    assert (ending.note is not None, ending.is_cut, ending.patch) == (is_noted, False, None)


def test_chunks_before_the_samples_are_passed_by_with_their_padding() -> None:
    contents = pcm_wav(pcm16(tone()))
    listed = contents[:36] + b"LIST" + struct.pack("<I", 5) + b"abcde\0" + contents[36:]
    assert find_ending(io.BytesIO(listed), Container.WAV) == Ending()
    note = find_ending(io.BytesIO(listed[:-100]), Container.WAV).note
    assert note == "its header counts 32,000 bytes of sound and 31,900 are there: all of these were read"


@pytest.mark.parametrize("stated", [0, 2, 15_999, 16_000])
def test_a_wav_that_goes_on_after_its_stated_end_is_read_to_the_end_of_the_file(stated: int) -> None:
    ending = find_ending(io.BytesIO(pcm_wav(pcm16(tone()), data_bytes=stated)), Container.WAV)
    assert ending.note == f"its header counts {stated:,} bytes of sound and 32,000 are there: all of these were read"
    assert ending.patch == (40, struct.pack("<I", 32_000))


@pytest.mark.parametrize(
    "trailer",
    [
        b"",
        bytes(1_000),  # padding
        b"abcd" + struct.pack("<I", 200) + bytes(200),  # a chunk that nobody knows
        b"LIST" + struct.pack("<I", 900) + b"x" * 90,  # one that is cut
        b"TAG" + b"x" * 125,
        b"\0LIST" + struct.pack("<I", 100) + b"x" * 100,
        b"\xff" * 64,
    ],
)
def test_what_follows_the_samples_and_is_none_is_not_read(trailer: bytes) -> None:
    assert find_ending(io.BytesIO(pcm_wav(pcm16(tone())) + trailer), Container.WAV) == Ending()


def test_the_long_length_of_an_rf64_is_used(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 16_000, format="RF64")
    contents = (tmp_path / "a.wav").read_bytes()
    assert contents[:4] == b"RF64"
    assert find_ending(io.BytesIO(contents), Container.WAV) == Ending()
    note = find_ending(io.BytesIO(contents[:-1_000]), Container.WAV).note
    assert note is not None
    assert "counts 32,000 bytes of sound and 31,000 are there" in note


def test_a_file_of_a_million_empty_chunks_is_given_up_soon() -> None:
    file = io.BytesIO(b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 1_000_000)
    assert find_ending(file, Container.WAV) == Ending()
    assert file.tell() < 9 * MAX_CHUNKS


def test_an_ogg_without_the_mark_of_its_end_is_noted(tmp_path: Path) -> None:
    contents = write(tmp_path / "a.ogg", tone(3.0)).read_bytes()
    assert find_ending(io.BytesIO(contents), Container.OGG) == Ending()
    whole_pages = contents[: contents.rindex(b"OggS")]
    ending = find_ending(io.BytesIO(whole_pages), Container.OGG)
    assert not ending.is_cut
    assert ending.note is not None
    assert "not marked as the end" in ending.note


@pytest.mark.parametrize(("flags", "is_marked"), [(0, False), (1, False), (2, False), (4, True), (5, True)])
def test_the_mark_of_the_end_is_bit_2(flags: int, is_marked: bool) -> None:
    page = b"OggS\0" + bytes([flags]) + bytes(20) + b"\x01" + b"\x03abc"
    assert (find_ending(io.BytesIO(page), Container.OGG).note is None) is is_marked


def test_an_ogg_cut_within_a_page_misses_something(tmp_path: Path) -> None:
    contents = write(tmp_path / "a.ogg", np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)).read_bytes()
    borders = [place for place in range(len(contents)) if contents.startswith(b"OggS", place)]
    assert len(borders) > 3
    for length in {place + offset for place in borders for offset in (-200, -1, 0, 4, 5, 26, 27, 28, 60)}:
        is_within_mark = any(0 < length - border < 4 for border in borders)  # too little to tell from trailing junk
        if 4 <= length < len(contents) and not is_within_mark:
            is_cut = find_ending(io.BytesIO(contents[:length]), Container.OGG).is_cut
            assert is_cut is not (length in borders), length
