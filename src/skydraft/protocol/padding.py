"""Frames of a few fixed sizes, so that who sees a connection from outside, under TLS, does not learn what passes by
how long it is.

A padded frame is the byte c1, with which no msgpack value begins, and then messages, each after its length in four
bytes, big-endian. A length of 0 ends them; zeros fill the frame up to its size. A frame without messages is a cover.
"""

from __future__ import annotations

from collections import deque

from skydraft.errors import RemoteProtocolError

MARK = b"\xc1"
LENGTH_BYTES = 4
# Powers of 4: a frame tells the logarithm of its length, and that coarsely, for at most four times the bytes.
SIZES = (2**8, 2**10, 2**12, 2**14, 2**16, 2**18, 2**20, 2**22, 2**23)
MAX_MESSAGES = 64  # of one frame


def is_padded(frame: bytes) -> bool:
    return frame[:1] == MARK


def pack(waiting: deque[bytes]) -> bytes:
    """Take the first message out, and as many after it as fit the same size; a cover where none waits.

    Args:
        waiting: messages in their order; none of them empty.
    """
    parts = [MARK]
    room = _size(len(MARK) + LENGTH_BYTES + len(waiting[0]) if waiting else 0) - len(MARK)
    size = room + len(MARK)
    for _ in range(MAX_MESSAGES):
        if not waiting or LENGTH_BYTES + len(waiting[0]) > room:
            break
        message = waiting.popleft()
        parts += (len(message).to_bytes(LENGTH_BYTES, "big"), message)
        room -= LENGTH_BYTES + len(message)
    return b"".join(parts).ljust(size, b"\0")


def unpack(frame: bytes) -> list[bytes]:
    """The messages of a padded frame.

    Raises:
        RemoteProtocolError: `pack` would not have made it.
    """
    if not is_padded(frame) or _size(len(frame)) != len(frame):
        raise RemoteProtocolError(
            f"a frame of {len(frame)} bytes came that begins with {frame[:1].hex() or 'nothing'}; on this connection "
            f"frames are padded: they begin with {MARK.hex()} and have one of a few sizes, {SIZES[0]} bytes or more"
        )
    messages, place = list[bytes](), len(MARK)
    while length := int.from_bytes(frame[place : place + LENGTH_BYTES], "big"):
        place += LENGTH_BYTES
        if length > len(frame) - place or len(messages) == MAX_MESSAGES:
            raise RemoteProtocolError(
                f"message {len(messages)} of a padded frame of {len(frame)} bytes is to have {length} bytes, from byte "
                f"{place} on; a frame has at most {MAX_MESSAGES} messages"
            )
        messages.append(frame[place : place + length])
        place += length
    if frame.count(b"\0", place) != len(frame) - place:
        raise RemoteProtocolError("the padding of a frame is not zero")
    return messages


def _size(num_bytes: int) -> int:
    """The smallest size of a frame with room for so many bytes; above all sizes a multiple of the largest."""
    largest = SIZES[-1]
    return next((size for size in SIZES if num_bytes <= size), -(-num_bytes // largest) * largest)
