"""Padded frames: golden bytes, round trips, and nothing else than what packing makes is taken."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.errors import RemoteProtocolError
from skydraft.protocol import padding


def packed(*messages: bytes) -> bytes:
    waiting = deque(messages)
    frame = padding.pack(waiting)
    assert not waiting
    return frame


def frame_of(*bits: bytes, size: int = 256) -> bytes:
    return b"".join(bits).ljust(size, b"\0")


GOLDEN = [
    ((), "c1"),
    ((b"\x91\x04",), "c1 00000002 9104"),
    ((b"\x91\x04", b"\x92\x03\x07"), "c1 00000002 9104 00000003 920307"),
]


@pytest.mark.parametrize(("messages", "head"), GOLDEN)
def test_golden_bytes(messages: tuple[bytes, ...], head: str) -> None:
    assert packed(*messages) == frame_of(bytes.fromhex(head))
    assert tuple(padding.unpack(packed(*messages))) == messages


@pytest.mark.parametrize(
    ("num_bytes", "size"),
    [(1, 256), (251, 256), (252, 1024), (1019, 1024), (1020, 4096), (2**22, 2**23), (2**23 - 5, 2**23), (2**23, 2**24)],
)
def test_a_message_travels_in_the_smallest_size_that_has_room_for_it(num_bytes: int, size: int) -> None:
    frame = packed(b"\x90" * num_bytes)
    assert len(frame) == size
    assert padding.unpack(frame) == [b"\x90" * num_bytes]


def test_what_waits_travels_in_the_room_that_the_first_message_leaves() -> None:
    waiting = deque([b"\x90" * 100, b"\x91" * 100, b"\x92" * 100, b"\x93"])
    assert padding.unpack(padding.pack(waiting)) == [b"\x90" * 100, b"\x91" * 100]
    assert list(waiting) == [b"\x92" * 100, b"\x93"]


@given(st.lists(st.binary(min_size=1, max_size=600), max_size=100))
def test_messages_come_out_as_they_went_in_and_every_frame_has_one_of_the_sizes(messages: list[bytes]) -> None:
    waiting, received = deque(messages), list[bytes]()
    while waiting:
        frame = padding.pack(waiting)
        assert len(frame) in padding.SIZES
        received += padding.unpack(frame)
    assert received == messages
    assert padding.unpack(padding.pack(waiting)) == []


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (b"", "begins with nothing"),
        (b"\x91\x04", "begins with 91"),
        (frame_of(b"\x91\x04"), "begins with 91"),
        (b"\xc1", "a frame of 1 bytes"),
        (frame_of(b"\xc1", size=257), "a frame of 257 bytes"),
        (frame_of(b"\xc1", size=255), "a frame of 255 bytes"),
        (frame_of(b"\xc1\0\0\0\xfc"), "to have 252 bytes"),
        (frame_of(b"\xc1\xff\xff\xff\xff"), "to have 4294967295 bytes"),
        (frame_of(b"\xc1\0\0\0\1a\0\0\0\0b"), "the padding of a frame is not zero"),
        (frame_of(b"\xc1")[:-1] + b"\1", "the padding of a frame is not zero"),
        (frame_of(b"\xc1", b"\0\0\0\1a" * 65, size=1024), "at most 64 messages"),
    ],
)
def test_what_packing_does_not_make_is_refused(frame: bytes, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        padding.unpack(frame)


def test_a_message_may_end_with_its_frame() -> None:
    """Then nothing says that no other follows."""
    frame = b"\xc1\0\0\0\xfb" + b"a" * 251
    assert padding.unpack(frame) == [b"a" * 251]
    assert padding.unpack(b"\xc1\0\0\0\xf9" + b"a" * 249 + b"\0\0") == [b"a" * 249]


@given(st.binary(max_size=255), st.booleans())
def test_arbitrary_frames_are_messages_or_refused(data: bytes, is_marked: bool) -> None:
    frame = frame_of(b"\xc1" if is_marked else b"", data)[:256]
    try:
        messages = padding.unpack(frame)
    except RemoteProtocolError:
        return
    assert packed(*messages) == frame
