from __future__ import annotations

import io
from pathlib import Path

import pytest
import soundfile

from skydraft.audio.mpeg import has_length_tag, is_mpeg_header, parse_header, walk_frames
from tests.audio.sounds import tone


@pytest.mark.parametrize(
    ("head", "num_bytes", "num_samples"),
    [
        ("fffb9064", 417, 1152),  # MPEG 1, 128 kbit/s, 44.1 kHz: 144 * 128000 / 44100 = 417.96
        ("fffb9264", 418, 1152),  # the same, padded
        ("fffbe464", 960, 1152),  # MPEG 1, 320 kbit/s, 48 kHz
        ("fff388c4", 288, 576),  # MPEG 2, 64 kbit/s, 16 kHz: 72 * 64000 / 16000
        ("ffe318c4", 72, 576),  # MPEG 2.5, 8 kbit/s, 8 kHz: 72 * 8000 / 8000
    ],
)
def test_frame_lengths_follow_the_standard(head: str, num_bytes: int, num_samples: int) -> None:
    assert parse_header(bytes.fromhex(head)) == (num_bytes, num_samples)


@pytest.mark.parametrize(
    ("first_bytes", "samples_per_frame", "least_kbps", "most_kbps", "rates_hz"),
    [
        (0xFFFB, 1152, 32, 320, (44_100, 48_000, 32_000)),
        (0xFFF3, 576, 8, 160, (22_050, 24_000, 16_000)),
        (0xFFE3, 576, 8, 160, (11_025, 12_000, 8_000)),
    ],
)
def test_every_bit_rate_and_sample_rate_gives_its_length(
    first_bytes: int, samples_per_frame: int, least_kbps: int, most_kbps: int, rates_hz: tuple[int, ...]
) -> None:
    """The bit rates rise in steps of 8, then 16, 32 and 64 kbit/s: as many of each as the standard's columns show."""
    steps = [8] * 4 + [16] * 4 + [32] * 4 + [64] if most_kbps == 320 else [8] * 7 + [16] * 6
    kbps_column = [least_kbps + sum(steps[:index]) for index in range(14)]
    assert kbps_column[-1] == most_kbps
    for index, kbps in enumerate(kbps_column, start=1):
        for rate_index, rate_hz in enumerate(rates_hz):
            head = first_bytes.to_bytes(2, "big") + bytes([index << 4 | rate_index << 2, 0])
            assert parse_header(head) == (samples_per_frame // 8 * kbps * 1000 // rate_hz, samples_per_frame)


@pytest.mark.parametrize("tag", [b"Xing", b"Info", b"VBRI"])
def test_a_length_tag_is_found(tag: bytes) -> None:
    assert has_length_tag(bytes(36) + tag + bytes(8))
    assert not has_length_tag(bytes(48))


@pytest.mark.parametrize(
    "head",
    ["", "fffb90", "fefb9064", "ff7b9064", "fffd9064", "fffff064", "ffeb9064", "fffb0064", "fffbf064", "fffb9c64"],
    ids=[
        "empty",
        "short",
        "sync",
        "sync",
        "layer II",
        "layer I",
        "version",
        "free rate",
        "bad rate",
        "bad sample rate",
    ],
)
def test_what_is_no_layer_iii_header_is_refused(head: str) -> None:
    assert not is_mpeg_header(bytes.fromhex(head))


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_walking_an_encoders_file_counts_its_samples(tmp_path: Path, rate_hz: int, mode: str) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(2.0, rate_hz), rate_hz, bitrate_mode=mode, compression_level=0.0)
    contents = path.read_bytes()
    frames = walk_frames(io.BytesIO(contents), 0)
    assert has_length_tag(contents[:500])
    assert not frames.is_cut
    assert 2.0 <= frames.num_samples / rate_hz < 2.0 + 4 * 1152 / rate_hz  # the tag, the codec's delay, the last frame


def test_a_frame_that_is_not_whole_is_told() -> None:
    frame = bytes.fromhex("fffb9064") + bytes(413)
    assert walk_frames(io.BytesIO(frame * 3 + frame[:-1]), 0) == (3 * 1152, True)
    assert walk_frames(io.BytesIO(frame * 3 + b"TAG" + bytes(125)), 0) == (3 * 1152, False)


def test_the_walk_begins_where_it_is_told() -> None:
    frame = bytes.fromhex("fffb9064") + bytes(413)
    assert walk_frames(io.BytesIO(b"junk" + frame), 4) == (1152, False)
    assert walk_frames(io.BytesIO(b"junk" + frame), 0) == (0, False)
