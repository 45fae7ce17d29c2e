"""The frame headers of MPEG audio (MP3): enough to count samples without decoding.

Source: ISO/IEC 11172-3, section 2.4.2.3, and 13818-3 (layer III only, the third column of the bit-rate tables).
"""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

KBPS_MPEG1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
KBPS_MPEG2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # MPEG 1, 2 and 2.5
LAYER_III = 1
HEADER_BYTES = 4
MPEG_1 = 3


class MpegFrame(NamedTuple):
    """num_bytes: of the whole frame. num_samples: of one channel."""

    num_bytes: int
    num_samples: int


class FrameCount(NamedTuple):
    """num_samples: of one channel in all whole frames. is_cut: the last frame is not whole."""

    num_samples: int
    is_cut: bool


def is_mpeg_header(head: bytes) -> bool:
    """Whether four bytes can begin a layer III frame."""
    return parse_header(head) is not None


def parse_header(head: bytes) -> MpegFrame | None:
    """Read a layer III frame header of four bytes; None: it is not one."""
    if len(head) < HEADER_BYTES or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate_index, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version not in RATES_HZ or layer != LAYER_III or rate_index == 3 or not 0 < bit_rate_index < 15:
        return None
    is_mpeg1 = version == MPEG_1
    kbps = (KBPS_MPEG1 if is_mpeg1 else KBPS_MPEG2)[bit_rate_index]
    num_samples = 1152 if is_mpeg1 else 576
    return MpegFrame(num_samples // 8 * kbps * 1000 // RATES_HZ[version][rate_index] + padding, num_samples)


def has_length_tag(first_bytes: bytes) -> bool:
    """Whether the first frame holds the tag in which encoders write how many frames follow."""
    return any(tag in first_bytes for tag in (b"Xing", b"Info", b"VBRI"))


def walk_frames(file: BinaryIO, start: int) -> FrameCount:
    """Count frames from byte `start` for as long as one follows the other: a tag at the end stops it."""
    num_samples = 0
    file.seek(start)
    while (frame := parse_header(file.read(HEADER_BYTES))) is not None:
        body_bytes = frame.num_bytes - HEADER_BYTES
        if len(file.read(body_bytes)) < body_bytes:
            return FrameCount(num_samples, is_cut=True)
        num_samples += frame.num_samples
    return FrameCount(num_samples, is_cut=False)
