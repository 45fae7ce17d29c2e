"""What a model is conditioned on."""

from __future__ import annotations

import enum
import math

import msgspec

from skydraft.errors import ConfigError


class SegmentKind(enum.StrEnum):
    """What a part of a prompt is, for the share level."""

    INSTRUCTION = "instruction"  # what is asked
    EVIDENCE = "evidence"  # what the device observed


class TokenSegment(msgspec.Struct, frozen=True):
    """Token ids of a prompt."""

    token_ids: tuple[int, ...]
    kind: SegmentKind = SegmentKind.INSTRUCTION


class TensorSegment(msgspec.Struct, frozen=True):
    """A model input other than token ids.

    name: what it is, for example "log_mel".
    dtype: "int8", "float16" or "float32"; little-endian.
    shape: for log_mel [num_mel_bins, num_frames].
    data: the bytes, row-major.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes
    kind: SegmentKind = SegmentKind.EVIDENCE

    def __post_init__(self) -> None:
        expected = math.prod(self.shape) * DTYPE_BYTES.get(self.dtype, 0)
        if expected != len(self.data) or not expected:
            raise ConfigError(
                f"tensor {self.name!r} of dtype {self.dtype!r} and shape {list(self.shape)} should have {expected} "
                f"bytes (more than 0, dtype one of {', '.join(DTYPE_BYTES)}) and has {len(self.data)}"
            )


DTYPE_BYTES = {"int8": 1, "float16": 2, "float32": 4}

Segment = TokenSegment | TensorSegment


class Prompt(msgspec.Struct, frozen=True):
    """What a model is conditioned on: segments in order."""

    segments: tuple[Segment, ...]

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Of its text, what lies between left out."""
        texts = (segment.token_ids for segment in self.segments if isinstance(segment, TokenSegment))
        return tuple(token_id for text in texts for token_id in text)

    @property
    def has_evidence(self) -> bool:
        return any(segment.kind is SegmentKind.EVIDENCE for segment in self.segments)
