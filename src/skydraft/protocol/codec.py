"""Bytes <-> messages. Sizes are bounded before anything is allocated; whatever arrives is a message or an error."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple, cast

import msgspec

from skydraft.errors import ConfigError, RemoteProtocolError, VersionMismatch
from skydraft.protocol.checks import check, plain, sendable
from skydraft.protocol.limits import MAX_VERSION, FrameLimits
from skydraft.protocol.messages import (
    PROTOCOL_VERSION,
    Close,
    CloudMessage,
    EdgeMessage,
    Fault,
    Generate,
    Message,
    Offer,
    Open,
    Opened,
    Tokens,
    Verdict,
    Working,
)

MAX_REASON_CHARS = 200  # of what a decoder says about bytes: it may quote them

_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """Write a message: [tag, fields...] without the last fields that have their default.

    What is said to a person is made fit to travel (`checks.sendable`).
    """
    message = sendable(message)
    fields = [_fields(value) if isinstance(value, msgspec.Struct) else value for value in _fields(message)]
    return _encoder.encode([message.__struct_config__.tag, *fields])


def _fields(struct: msgspec.Struct) -> list[Any]:
    """Its values up to the last that differs from its default."""
    values, defaults = msgspec.structs.astuple(struct), _defaults(type(struct))
    num_kept = len(values)
    while num_kept and values[num_kept - 1] == defaults[num_kept - 1]:
        num_kept -= 1
    return list(values[:num_kept])


@lru_cache(maxsize=64)
def _defaults(kind: type[msgspec.Struct]) -> tuple[object, ...]:
    """Of the fields; what a required field has equals nothing."""
    return tuple(field.default for field in msgspec.structs.fields(kind))


class _Side(NamedTuple):
    """What one side may send. kinds, decoders: by tag."""

    name: str
    kinds: dict[int, type[Message]]
    decoders: dict[int, msgspec.msgpack.Decoder[Message]]


def _side(name: str, *kinds: type[Message]) -> _Side:
    by_tag = {cast(int, kind.__struct_config__.tag): kind for kind in kinds}
    return _Side(name, by_tag, {tag: msgspec.msgpack.Decoder(kind) for tag, kind in by_tag.items()})


_DEVICE = _side("device", Open, Offer, Generate, Close)
_CLOUD = _side("cloud", Opened, Verdict, Tokens, Fault, Working)
_KINDS = {**_DEVICE.kinds, **_CLOUD.kinds}
_VERSIONED = frozenset(cast(int, kind.__struct_config__.tag) for kind in (Open, Opened))

DEFAULT_LIMITS = FrameLimits()


def decode_edge_message(data: bytes, limits: FrameLimits = DEFAULT_LIMITS) -> EdgeMessage:
    """Read what a device sent.

    Raises:
        VersionMismatch: it opens a session in another version of the protocol.
        RemoteProtocolError: it is not a message that a device sends, or is too large.
    """
    return cast(EdgeMessage, _decode(data, limits, _DEVICE))


def decode_cloud_message(data: bytes, limits: FrameLimits = DEFAULT_LIMITS) -> CloudMessage:
    """Read what a cloud sent.

    Raises:
        VersionMismatch: it answers in another version of the protocol.
        RemoteProtocolError: it is not a message that a cloud sends, or is too large.
    """
    return cast(CloudMessage, _decode(data, limits, _CLOUD))


def _decode(data: bytes, limits: FrameLimits, side: _Side) -> Message:
    if len(data) > limits.max_frame_bytes:
        raise RemoteProtocolError(
            f"the {side.name} sent a message of {len(data)} bytes and this side takes {limits.max_frame_bytes}"
        )
    tag = _tag_of(data, side)
    try:
        message = side.decoders[tag].decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, ConfigError) as error:
        raise RemoteProtocolError(_complaint(error, tag, side)) from error
    check(message, limits)
    return message


def _tag_of(data: bytes, side: _Side) -> int:
    """The kind of a message, from its first two bytes; its version, where it has one, is the third."""
    if len(data) < 2 or data[0] >> 4 != 0x9:
        raise RemoteProtocolError(
            f"the {side.name} sent {len(data)} bytes that begin with {data[:2].hex() or 'nothing'}; a message begins "
            "with 90 to 9f (a msgpack array) and its tag"
        )
    tag = data[1]
    if tag not in side.kinds:
        what = _KINDS[tag].__name__ if tag in _KINDS else f"a message with tag {tag}"
        raise RemoteProtocolError(f"the {side.name} sent {what}, which a {side.name} does not send")
    if tag in _VERSIONED and len(data) > 2 and PROTOCOL_VERSION != data[2] <= MAX_VERSION:
        raise VersionMismatch(PROTOCOL_VERSION, data[2])
    return tag


_PATH = re.compile(r" - at \$\[(\d+)\]\S*$")


def _complaint(error: Exception, tag: int, side: _Side) -> str:
    reason = "a text that is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error).replace("`", "")
    place = "cannot be read"
    if found := _PATH.search(reason):
        index = int(found[1])
        place = f"has a wrong {('tag', *side.kinds[tag].__struct_fields__)[index]}"
        reason = reason[: found.start()]
    return f"the {side.name} sent {_KINDS[tag].__name__}, which {place}: {plain(reason, MAX_REASON_CHARS)}"
