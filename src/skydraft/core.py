"""The shared nouns: prompts, sampling parameters, acceptance rules, drafts, verdicts.

Positions count generated tokens from 0; a prompt's tokens have no position, because the two sides may have
different prompts.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

import msgspec

from skydraft.errors import ConfigError, first_line, require


class Origin(enum.StrEnum):
    """Where a token of the text came from."""

    EDGE = "edge"  # committed on the device, not judged
    ACCEPTED = "accepted"  # drafted on the device and held by the target
    CORRECTED = "corrected"  # the target's choice where the draft failed
    CLOUD = "cloud"  # the target's own: a bonus token, or written on credit


class Mode(enum.StrEnum):
    """Who writes."""

    HYBRID = "hybrid"  # the device drafts, the cloud judges
    EDGE = "edge"  # the draft model alone
    CLOUD = "cloud"  # the target model alone
    AUTO = "auto"  # one of these, chosen for each text and again during it


class Objective(enum.StrEnum):
    """What a mode is chosen for."""

    LATENCY = "latency"  # the soonest text
    COST = "cost"  # the least work of the cloud
    ENERGY = "energy"  # the least of the device's battery
    PRIVACY = "privacy"  # the least that leaves the device


class ShareLevel(enum.StrEnum):
    """What may leave the device."""

    NONE = "none"  # nothing
    TOKENS = "tokens"  # token ids and control; the cloud does not see the evidence
    FEATURES = "features"  # model inputs too, for example log-mel, which can be inverted to intelligible speech


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
    dtype: "float16" or "float32"; little-endian.
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


DTYPE_BYTES = {"float16": 2, "float32": 4}

Segment = TokenSegment | TensorSegment


class Prompt(msgspec.Struct, frozen=True):
    """What a model is conditioned on: segments in order."""

    segments: tuple[Segment, ...]

    @property
    def has_evidence(self) -> bool:
        return any(segment.kind is SegmentKind.EVIDENCE for segment in self.segments)


class SamplingParams(msgspec.Struct, frozen=True):
    """How a token is chosen from logits, and when a text ends.

    temperature: 0 is greedy.
    top_k: keep the k most probable tokens; 0 keeps all.
    top_p: keep the smallest set of tokens with at least this probability; 1 keeps all.
    seed: of the noise; 0 to 2**64 - 1.
    max_tokens: the text ends after this many tokens.
    end_ids: or at one of these, which belongs to the text.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int = 128
    end_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(0 <= self.temperature <= 100, "temperature", self.temperature, "0 to 100")
        require(self.top_k >= 0, "top_k", self.top_k, "0 or more")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        require(0 <= self.seed < 2**64, "seed", self.seed, "0 to 2**64 - 1")
        require(1 <= self.max_tokens <= 2**20, "max_tokens", self.max_tokens, "1 to 2**20")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def is_end(self, token_ids: Sequence[int]) -> bool:
        """Whether a text of these tokens is complete."""
        return len(token_ids) >= self.max_tokens or (bool(token_ids) and token_ids[-1] in self.end_ids)


class Exact(msgspec.Struct, frozen=True, tag="exact"):
    """A token holds when it is the target's choice: the text is the cloud's own."""

    def __str__(self) -> str:
        return "exact"


class Rejection(msgspec.Struct, frozen=True, tag="rejection"):
    """A token holds when u < target_prob / draft_prob: the law is the target's.

    top_k: how many tokens the draft distribution is cut to.
    lattice: draft probabilities are multiples of 1 / lattice.
    """

    top_k: int = 8
    lattice: int = 64

    def __post_init__(self) -> None:
        require(1 <= self.top_k <= 256, "rejection:K", self.top_k, "1 to 256")
        require(1 <= self.lattice <= 65536, "rejection:K,L", self.lattice, "1 to 65536")

    def __str__(self) -> str:
        return f"rejection:{self.top_k},{self.lattice}"


class Rank(msgspec.Struct, frozen=True, tag="rank"):
    """A token holds when its rank under the target is at most max_rank (1 is the most probable)."""

    max_rank: int = 20

    def __post_init__(self) -> None:
        require(self.max_rank >= 1, "rank:R", self.max_rank, "1 or more")

    def __str__(self) -> str:
        return f"rank:{self.max_rank}"


class MinProb(msgspec.Struct, frozen=True, tag="prob"):
    """A token holds when the target gives it at least min_prob."""

    min_prob: float

    def __post_init__(self) -> None:
        require(0 < self.min_prob <= 1, "prob:x", self.min_prob, "above 0 and at most 1")

    def __str__(self) -> str:
        return f"prob:{self.min_prob!r}"


AcceptanceRule = Exact | Rejection | Rank | MinProb


def parse_rule(text: str) -> AcceptanceRule:
    """Read `exact`, `rejection`, `rejection:K,L`, `rank`, `rank:R` or `prob:x`.

    Raises:
        ConfigError: it is none of these.
    """
    name, colon, argument = text.partition(":")
    try:
        match name, colon:
            case "exact", "":
                return Exact()
            case "rejection", "":
                return Rejection()
            case "rejection", _:
                top_k, lattice = argument.split(",")
                return Rejection(read_int(top_k), read_int(lattice))
            case "rank", _:
                return Rank(read_int(argument)) if colon else Rank()
            case "prob", _:
                return MinProb(read_float(argument))
    except ValueError:
        pass
    raise ConfigError(f"acceptance rule {text!r} is none of exact, rejection, rejection:K,L, rank:R, prob:x")


_INT = re.compile(r"-?[0-9]{1,40}")
_FLOAT = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def read_int(text: str) -> int:
    """Read a whole number: ASCII digits, perhaps behind a minus. `int` takes more: ` 5`, `1_0`, digits of any script.

    Raises:
        ValueError: it is none.
    """
    if not _INT.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def read_float(text: str) -> float:
    """Read a number as `0.25`, `-2` or `1e-05`: ASCII, without the blanks, underscores, inf and nan of `float`.

    Raises:
        ValueError: it is none, or too large.
    """
    number = float(text) if _FLOAT.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a number")
    return number


class LatticeDistribution(msgspec.Struct, frozen=True):
    """A draft distribution cut to a few tokens and rounded to multiples of 1 / lattice.

    token_ids: the support, ascending.
    weights: of each, 0 to lattice; they sum to lattice.
    """

    token_ids: tuple[int, ...]
    weights: tuple[int, ...]


class Token(msgspec.Struct, frozen=True):
    """A token of the text and where it came from."""

    token_id: int
    origin: Origin


class TokenSignals(msgspec.Struct, frozen=True):
    """How sure the draft model was of one token that it drafted.

    entropy_nats: of its distribution (temperature 1, nothing cut).
    log_prob: of the token, natural logarithm.
    margin: probability of its best token less that of its second best.
    """

    entropy_nats: float
    log_prob: float
    margin: float


class Draft(msgspec.Struct, frozen=True):
    """An offer of token ids.

    start: position of the first token (for a tree: of the root's children).
    token_ids: the nodes; parents come before their children.
    parents: of each node: 0 is the root (what stands before `start`), i + 1 is node i. None is a chain.
    num_forced: how many leading tokens, a chain, the device has already committed and does not ask about.
    distributions: what each token that is not forced was drawn from, where the rule is `rejection`.
    """

    start: int
    token_ids: tuple[int, ...]
    parents: tuple[int, ...] | None = None
    num_forced: int = 0
    distributions: tuple[LatticeDistribution, ...] | None = None


class Verdict(msgspec.Struct, frozen=True):
    """The cloud's answer to a draft.

    length: of the verified log now.
    token_id: its last token, when it is the target's own (a correction or a bonus token).
    node: for a tree: the last node that held, 0 for none and i + 1 for node i.
    is_final: False is reserved for verdicts that a later one may take back.
    """

    length: int
    token_id: int | None = None
    node: int | None = None
    is_final: bool = True


def check_types(settings: msgspec.Struct, where: str = "") -> None:
    """Hold each field of settings against its type, as those of a file are: a constructor in Python checks none.

    Who makes settings in Python may write the word of an enumeration; it becomes its member here.

    Args:
        where: what to put before a field's name.
    Raises:
        ConfigError: a value is of another type, or none of the words.
    """
    for field in msgspec.structs.fields(settings):
        value = getattr(settings, field.name)
        try:
            msgspec.structs.force_setattr(settings, field.name, msgspec.convert(value, field.type))
        except msgspec.ValidationError as error:
            words = _words_of(field.type)
            wanted = f"must be one of {', '.join(words)}" if words else f"is of the wrong type: {first_line(error)}"
            raise ConfigError(f"{where}{field.name} is {value!r} and {wanted}") from None


def _words_of(kind: Any) -> tuple[str, ...]:
    """The words that a setting takes; none where it takes more than words."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(kind) if isinstance(kind, type) and issubclass(kind, enum.StrEnum) else ()
