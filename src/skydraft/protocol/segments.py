"""core.Prompt <-> the segments of messages.Open."""

from __future__ import annotations

from collections.abc import Iterable

from skydraft.core import Prompt, Segment, SegmentKind, TensorSegment, TokenSegment
from skydraft.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from skydraft.protocol import packing
from skydraft.protocol.limits import MAX_SEGMENTS
from skydraft.protocol.messages import WireSegment, WireTensor, WireTokens


def to_wire(prompt: Prompt, id_bits: int) -> tuple[WireSegment, ...]:
    """Put a prompt into the form in which it travels.

    Args:
        id_bits: of the device's vocabulary (`packing.id_bits`).
    Raises:
        LocalProtocolError: an id is not of the vocabulary, or the prompt has too many segments.
    """
    if len(prompt.segments) > MAX_SEGMENTS:
        raise LocalProtocolError(f"a prompt has {len(prompt.segments)} segments and may have {MAX_SEGMENTS}: join some")
    return tuple(_segment_to_wire(segment, id_bits) for segment in prompt.segments)


def _segment_to_wire(segment: Segment, id_bits: int) -> WireSegment:
    if isinstance(segment, TokenSegment):
        return WireTokens(packing.pack(segment.token_ids, id_bits), segment.kind is SegmentKind.EVIDENCE)
    return WireTensor(segment.name, segment.dtype, segment.shape, segment.data)


def from_wire(segments: Iterable[WireSegment], num_tokens: int) -> Prompt:
    """Read a prompt; `codec` has bounded its size.

    Args:
        num_tokens: of the device's vocabulary.
    Raises:
        RemoteProtocolError: an id is not of the vocabulary, or a tensor's bytes do not fit its shape.
    """
    num_bits = packing.id_bits(num_tokens)
    try:
        return Prompt(tuple(_segment_from_wire(segment, num_bits, num_tokens) for segment in segments))
    except ConfigError as error:
        raise RemoteProtocolError(f"the prompt is wrong: {error}") from error


def _segment_from_wire(segment: WireSegment, num_bits: int, num_tokens: int) -> Segment:
    if isinstance(segment, WireTokens):
        kind = SegmentKind.EVIDENCE if segment.is_evidence else SegmentKind.INSTRUCTION
        return TokenSegment(packing.unpack_ids(segment.packed_ids, num_bits, num_tokens), kind)
    return TensorSegment(segment.name, segment.dtype, segment.shape, segment.data)
