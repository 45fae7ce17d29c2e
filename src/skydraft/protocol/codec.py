"""Bytes <-> messages. Sizes are bounded before anything is allocated; whatever arrives is a message or an error."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import msgspec

from skydraft.errors import ConfigError, RemoteProtocolError, VersionMismatch
from skydraft.protocol.checks import check, plain, sendable
from skydraft.protocol.limits import MAX_VERSION, FrameLimits
from skydraft.protocol.messages import (
    OLDEST_VERSION,
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
    PromptRead,
    Tokens,
    Verdict,
    Working,
)

MAX_REASON_CHARS = 200  # of what a decoder says about bytes: it may quote them

DEFAULT_LIMITS = FrameLimits()

_PATH = re.compile(r" - at \$\[(\d+)\]\S*$")  # in what msgspec says, of a field
_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """Write a message: [tag, fields...] without the last fields that have their default.

    What is said to a person is made fit to travel (`checks.sendable`).
    """
    if isinstance(message, (Opened, Fault)):
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


Sent = TypeVar("Sent", bound=Message)


class _Side(Generic[Sent]):
    """What one side may send, by tag."""

    def __init__(self, name: str, *kinds: type[Sent]) -> None:
        self.name = name
        self.kinds = {cast(int, kind.__struct_config__.tag): kind for kind in kinds}
        self._decoders = {tag: msgspec.msgpack.Decoder(kind) for tag, kind in self.kinds.items()}

    def decode(self, data: bytes, limits: FrameLimits = DEFAULT_LIMITS) -> Sent:
        """Read what this side sent: the second byte tells the kind, the third the version where it has one.

        Raises:
            VersionMismatch: it opens a session in a version of the protocol that this side does not know.
            RemoteProtocolError: it is not a message that this side sends, or is too large.
        """
        if len(data) > limits.max_frame_bytes:
            raise RemoteProtocolError(
                f"the {self.name} sent a message of {len(data)} bytes and this side takes {limits.max_frame_bytes}"
            )
        if len(data) < 2 or data[0] >> 4 != 0x9:
            raise RemoteProtocolError(
                f"the {self.name} sent {len(data)} bytes that begin with {data[:2].hex() or 'nothing'}; a message "
                "begins with 90 to 9f (a msgpack array) and its tag"
            )
        tag = data[1]
        if tag not in self.kinds:
            what = _KINDS[tag].__name__ if tag in _KINDS else f"a message with tag {tag}"
            raise RemoteProtocolError(f"the {self.name} sent {what}, which a {self.name} does not send")
        is_known = len(data) < 3 or OLDEST_VERSION <= data[2] <= PROTOCOL_VERSION
        if tag in _VERSIONED and not is_known and data[2] <= MAX_VERSION:
            raise VersionMismatch(PROTOCOL_VERSION, data[2])
        try:
            message = self._decoders[tag].decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, ConfigError) as error:
            raise RemoteProtocolError(self._complaint(error, tag)) from error
        check(message, limits)
        return message

    def _complaint(self, error: Exception, tag: int) -> str:
        is_no_text = isinstance(error, UnicodeDecodeError) or "UTF-8" in str(error)  # msgspec before 0.23, and since
        reason = "a text that is not UTF-8" if is_no_text else str(error).replace("`", "")
        place = "cannot be read"
        if found := _PATH.search(reason):
            index = int(found[1])
            place = f"has a wrong {('tag', *self.kinds[tag].__struct_fields__)[index]}"
            reason = reason[: found.start()]
        return f"the {self.name} sent {_KINDS[tag].__name__}, which {place}: {plain(reason, MAX_REASON_CHARS)}"


_DEVICE = _Side[EdgeMessage]("device", Open, Offer, Generate, Close)
_CLOUD = _Side[CloudMessage]("cloud", Opened, Verdict, Tokens, Fault, Working, PromptRead)
_KINDS: dict[int, type[Message]] = {**_DEVICE.kinds, **_CLOUD.kinds}
_VERSIONED = frozenset(tag for tag, kind in _KINDS.items() if kind in (Open, Opened))

decode_edge_message = _DEVICE.decode
decode_cloud_message = _CLOUD.decode
