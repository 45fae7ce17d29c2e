"""The messages: what a device and a cloud say to each other.

Each is a msgpack array [tag, fields...] whose trailing fields are left out while they have their default (`codec`).
Token ids travel packed (`packing`): with the number of bits that the session's vocabulary needs. `session` is the
device's own number for a session within its connection.
"""

from __future__ import annotations

import enum
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from skydraft.core import PassTimes, SamplingParams
from skydraft.protocol.limits import (
    LOG_DIGEST_BYTES,
    MAX_DIGEST_BYTES,
    MAX_DIMENSIONS,
    MAX_DRAFT_TOKENS,
    MAX_GAP_CHANGE,
    MAX_IN_FLIGHT,
    MAX_KEY_BYTES,
    MAX_NAME_CHARS,
    MAX_RETRY_AFTER_S,
    MAX_RULE_CHARS,
    MAX_SEGMENTS,
    MAX_SENTENCE_CHARS,
    MAX_SESSION,
    MAX_TEXT_TOKENS,
    MAX_VERSION,
    MAX_VOCABULARY,
)
from skydraft.text.vocabulary import Vocabulary

PROTOCOL_VERSION = 3
OLDEST_VERSION = 2  # that is understood: each message of it is one of this version, with the defaults of what it lacks
NUM_FIELDS_OF_VERSION_2 = 6  # of SamplingParams

# The constraints are checked while a message is decoded, those of lengths before anything is allocated.
Version: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_VERSION)]
SessionNumber: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_SESSION)]
Position: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_TEXT_TOKENS)]
TokenId: TypeAlias = Annotated[int, Meta(ge=0, lt=MAX_VOCABULARY)]
NodeRow: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_TEXT_TOKENS + MAX_DRAFT_TOKENS)]
Name: TypeAlias = Annotated[str, Meta(max_length=MAX_NAME_CHARS)]
Digest: TypeAlias = Annotated[bytes, Meta(min_length=LOG_DIGEST_BYTES, max_length=MAX_DIGEST_BYTES)]
LogDigest: TypeAlias = Annotated[bytes, Meta(min_length=LOG_DIGEST_BYTES, max_length=LOG_DIGEST_BYTES)]
ResumeKey: TypeAlias = Annotated[bytes, Meta(max_length=MAX_KEY_BYTES)]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class FaultCode(enum.StrEnum):
    """Why the cloud refuses. The list is closed: a new code is a new protocol version."""

    VERSION = "version"  # the peer speaks another version
    VOCABULARY = "vocabulary"  # the two models do not share their token ids
    PROTOCOL = "protocol"  # the peer broke the protocol
    LIMIT = "limit"  # a size is above what the cloud takes
    PROMPT = "prompt"  # the model cannot take this prompt
    SAMPLING = "sampling"  # the cloud cannot write a text as it is asked to
    BUSY = "busy"  # no room now: try again after retry_after_s
    UNAUTHORIZED = "unauthorized"  # no key, or one that may not do this
    INTERNAL = "internal"  # the cloud failed


class WireStruct(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the messages, and of what stands inside them."""


class VocabularyMark(WireStruct, frozen=True):
    """What is compared of a vocabulary.

    num_tokens: ids 0 to num_tokens - 1 have a token.
    digest: of the id -> token map of these.
    """

    num_tokens: Annotated[int, Meta(ge=1, le=MAX_VOCABULARY)]
    digest: Digest

    @staticmethod
    def of(vocabulary: Vocabulary) -> VocabularyMark:
        return VocabularyMark(vocabulary.num_tokens, vocabulary.digest())


class WireTokens(WireStruct, frozen=True, tag=0):
    """A TokenSegment: ids packed with the bits that the vocabulary of `Open` needs."""

    packed_ids: bytes
    is_evidence: bool = False


class WireTensor(WireStruct, frozen=True, tag=1):
    """A TensorSegment: always evidence."""

    name: Name
    dtype: Name
    shape: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=MAX_DIMENSIONS)]
    data: bytes


WireSegment = WireTokens | WireTensor
WireSegments: TypeAlias = Annotated[tuple[WireSegment, ...], Meta(max_length=MAX_SEGMENTS)]


class Resume(WireStruct, frozen=True):
    """What a reconnecting device holds.

    key: from the session's Opened.
    length, digest: of the device's verified log (`packing.log_digest`).
    """

    key: Annotated[bytes, Meta(min_length=1, max_length=MAX_KEY_BYTES)]
    length: Position
    digest: LogDigest


def least_version(sampling: SamplingParams) -> int:
    """The oldest version that says this: a cloud that speaks no other then writes the text too."""
    new, defaults = (msgspec.structs.astuple(each)[NUM_FIELDS_OF_VERSION_2:] for each in (sampling, SamplingParams()))
    return OLDEST_VERSION if new == defaults else PROTOCOL_VERSION


class Open(WireStruct, frozen=True, tag=1):
    """Begin a session, or take one up again. Device to cloud.

    version: `least_version` of the sampling.
    rule: as `core.parse_rule` reads it.
    segments: the cloud's prompt; empty in a first attempt to resume.
    """

    version: Version
    session: SessionNumber
    vocabulary: VocabularyMark
    sampling: SamplingParams
    rule: Annotated[str, Meta(max_length=MAX_RULE_CHARS)]
    segments: WireSegments = ()
    resume: Resume | None = None


class Offer(WireStruct, frozen=True, tag=2):
    """A core.Draft. Device to cloud.

    packed_ids: the token ids; where the rule draws drafts only the forced ones, the others are in packed_probs.
    packed_parents: of a tree (`packing`), forced tokens left out; empty for a chain.
    packed_probs: tokens and the distributions that they were drawn from, where the rule draws drafts.
    """

    start: Position
    packed_ids: bytes
    session: SessionNumber = 0
    num_forced: Position = 0
    packed_parents: bytes = b""
    packed_probs: bytes = b""


class Generate(WireStruct, frozen=True, tag=3):
    """Credit: write on by yourself up to this position whenever no offer extends the log. Device to cloud."""

    up_to: Position
    session: SessionNumber = 0


class Close(WireStruct, frozen=True, tag=4):
    """The session is over; the cloud may forget it. Device to cloud."""

    session: SessionNumber = 0


class Limits(WireStruct, frozen=True):
    """What the cloud takes.

    max_tokens: of one session's text. max_draft_tokens: nodes of one offer. max_in_flight: offers not yet answered.
    """

    max_tokens: Count
    max_draft_tokens: Count
    max_in_flight: Count


LEAST_LIMITS = Limits(max_tokens=1, max_draft_tokens=16, max_in_flight=1)  # what every cloud takes, before it answered


class Opened(WireStruct, frozen=True, tag=5):
    """The session stands. Cloud to device.

    version: of the `Open` that it answers.
    resume_key: opens this session again after a lost connection; empty: the cloud does not know the session that was
        to be resumed, send `Open` with the prompt.
    length, digest: of the log that the cloud holds. Tokens that the device lacks follow in `Tokens`.
    vocabulary: of the target model, for the device to check where its own is larger.
    model: its name, for error messages. A device does not tell the name of its own.
    is_invariant: a row's logits do not depend on what else is read with it, before it, or on what was rejected: under
        the rule exact the text is the cloud's own.
    gap_change: where they do, by how much the difference of two of a row's logits was seen to change, at most; None:
        that was not measured.
    pass_times: of its model; None: not known.
    """

    version: Version
    session: SessionNumber
    resume_key: ResumeKey
    length: Position
    digest: LogDigest
    vocabulary: VocabularyMark
    limits: Limits
    model: Name = ""
    is_invariant: bool = False
    gap_change: Annotated[float, Meta(ge=0, le=MAX_GAP_CHANGE)] | None = None
    pass_times: PassTimes | None = None


class Verdict(WireStruct, frozen=True, tag=6):
    """The answer to offers that extended the log. Cloud to device.

    length: of the verified log now.
    token_id: its last token, where it is the target's own (a correction or a bonus token).
    node: for a tree: 0 for none, or i + 1 for the last node i that was accepted, of all that extended the log.
    is_final: False is reserved for verdicts that a later one may take back.
    num_offers: how many offers were judged together, the first that extended the log.
    num_near_ties: how many of the target's choices were decided by less than `Opened.gap_change`.
    packed_logprobs: of the tokens that it brings, but for the forced ones (`packing.pack_logprobs`), where they were
        asked for.
    is_end: the text has come to a stop string, or to the end of its grammar.
    """

    length: Position
    token_id: TokenId | None = None
    session: SessionNumber = 0
    node: NodeRow | None = None
    is_final: bool = True
    num_offers: Annotated[int, Meta(ge=1, le=MAX_IN_FLIGHT)] = 1
    num_near_ties: Position = 0
    packed_logprobs: bytes = b""
    is_end: bool = False


class Tokens(WireStruct, frozen=True, tag=7):
    """What the cloud wrote on credit, or what a resumed device lacks. Cloud to device.

    num_near_ties: as in `Verdict`; of what a resumed device lacks, all that were not told before.
    packed_logprobs: of all its tokens, where they were asked for.
    is_end: as in `Verdict`.
    """

    start: Position
    packed_ids: bytes
    session: SessionNumber = 0
    num_near_ties: Position = 0
    packed_logprobs: bytes = b""
    is_end: bool = False


class Fault(WireStruct, frozen=True, tag=8):
    """The session, or the connection where `session` is None, ends. Cloud to device.

    sentence: for a person. retry_after_s: when to try again; None: do not.
    """

    code: FaultCode
    sentence: Annotated[str, Meta(max_length=MAX_SENTENCE_CHARS)]
    session: SessionNumber | None = None
    retry_after_s: Annotated[float, Meta(ge=0, le=MAX_RETRY_AFTER_S)] | None = None


class Working(WireStruct, frozen=True, tag=9):
    """The cloud has nothing to say yet and works on it: reads the prompt, or serves others first. Cloud to device."""

    session: SessionNumber = 0


class PromptRead(WireStruct, frozen=True, tag=10):
    """The cloud reads the prompt, but for its beginning, which it has read for an earlier text. Cloud to device.

    Sent to a device whose handshake asks for it (`transport/headers`), where there is such a beginning.

    num_reused: tokens of it.
    """

    num_reused: Position
    session: SessionNumber = 0


EdgeMessage = Open | Offer | Generate | Close
CloudMessage = Opened | Verdict | Tokens | Fault | Working | PromptRead
Message = EdgeMessage | CloudMessage
