"""What is checked of a message before any session looks at it: sizes, numbers, fields that need each other."""

from __future__ import annotations

import math
import re

from msgspec.structs import replace

from skydraft.core import DTYPE_BYTES, parse_rule
from skydraft.errors import ConfigError, RemoteProtocolError
from skydraft.protocol.limits import (
    MAX_NAME_CHARS,
    MAX_PROBS_BYTES,
    MAX_RETRY_AFTER_S,
    MAX_SENTENCE_CHARS,
    MAX_VOCABULARY,
    FrameLimits,
)
from skydraft.protocol.messages import (
    Fault,
    Message,
    Offer,
    Open,
    Opened,
    Tokens,
    Verdict,
    WireTensor,
    WireTokens,
)
from skydraft.protocol.packing import id_bits, num_packed_bytes, num_packed_ids, parent_bits

MAX_ID_BYTES = 3  # of one packed id, whatever the vocabulary

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def plain(text: str, max_chars: int) -> str:
    """Make a text fit for a terminal, a log and UTF-8: no control characters, no lone surrogates, not too long."""
    text = _CONTROL.sub(" ", text).encode(errors="replace").decode()
    return text if len(text) <= max_chars else text[: max_chars - 3] + "..."


def sendable(message: Opened | Fault) -> Opened | Fault:
    """Make what a message says to a person fit to travel, so that the other side never refuses it for that.

    The name of a model comes from a folder's and may be anything; a wait may be longer than the protocol can say.
    """
    if isinstance(message, Opened):
        return replace(message, model=plain(message.model, MAX_NAME_CHARS))
    wait_s = None if message.retry_after_s is None else min(message.retry_after_s, MAX_RETRY_AFTER_S)
    return replace(message, sentence=plain(message.sentence, MAX_SENTENCE_CHARS), retry_after_s=wait_s)


def check(message: Message, limits: FrameLimits) -> None:
    """Refuse what no session could use.

    Raises:
        RemoteProtocolError: a size is above the limits, or fields do not fit together.
    """
    match message:  # the most frequent first
        case Offer():
            _check_offer(message, limits)
        case Verdict():
            _require(message.token_id is None or message.length > 0, "Verdict has a last token and a log of length 0")
        case Tokens():
            _require(bool(message.packed_ids), "Tokens has no tokens")
        case Open():
            _check_open(message, limits)
        case Opened():
            _require_plain("the name of a model", message.model)
        case Fault():
            _require_plain("the sentence of a fault", message.sentence)


def _check_open(message: Open, limits: FrameLimits) -> None:
    _require(bool(message.segments) or message.resume is not None, "Open has neither a prompt nor a session to resume")
    sampling = message.sampling
    try:
        parse_rule(message.rule).check_sampling(sampling)
    except ConfigError as error:
        raise RemoteProtocolError(f"the device sent Open with a wrong rule: {error}") from error
    _require_at_most("the largest end id", max(sampling.end_ids, default=0), MAX_VOCABULARY - 1)
    _require(min(sampling.end_ids, default=0) >= 0, f"Open has the end id {min(sampling.end_ids, default=0)}")
    _require_at_most("top_k", sampling.top_k, MAX_VOCABULARY)
    num_bits = id_bits(message.vocabulary.num_tokens)
    tokens = [segment for segment in message.segments if isinstance(segment, WireTokens)]
    num_tokens = sum(num_packed_ids(len(segment.packed_ids), num_bits) for segment in tokens)
    _require_at_most("the number of tokens of the prompt", num_tokens, limits.max_prompt_tokens)
    tensors = [segment for segment in message.segments if isinstance(segment, WireTensor)]
    num_bytes = sum(len(tensor.data) for tensor in tensors)
    _require_at_most("the number of bytes of the prompt's tensors", num_bytes, limits.max_tensor_bytes)
    for tensor in tensors:
        _check_tensor(tensor)


def _check_tensor(tensor: WireTensor) -> None:
    _require_plain("the name of a tensor", tensor.name)
    _require_plain("the dtype of a tensor", tensor.dtype)
    item_bytes = DTYPE_BYTES.get(tensor.dtype)
    if item_bytes is None:
        raise RemoteProtocolError(f"tensor {tensor.name} has dtype {tensor.dtype}, none of {', '.join(DTYPE_BYTES)}")
    expected = math.prod(tensor.shape) * item_bytes
    _require(
        expected == len(tensor.data),
        f"tensor {tensor.name} of shape {list(tensor.shape)} and dtype {tensor.dtype} has {len(tensor.data)} bytes "
        f"and should have {expected}",
    )


def _check_offer(message: Offer, limits: FrameLimits) -> None:
    num_id_bytes, num_forced = len(message.packed_ids), message.num_forced
    if not (num_id_bytes or message.packed_probs):
        raise RemoteProtocolError("Offer has no tokens")
    if num_forced > num_id_bytes:  # an id has at least 8 bits
        raise RemoteProtocolError(f"Offer says that {num_forced} tokens are forced and has {num_id_bytes} bytes of ids")
    _require_at_most("the length of an offer", num_id_bytes // MAX_ID_BYTES - num_forced, limits.max_draft_tokens)
    if message.packed_parents:
        _require(not message.packed_probs, "Offer is a tree and has draft distributions; these go with a chain only")
        max_bytes = num_packed_bytes(limits.max_draft_tokens, parent_bits(limits.max_draft_tokens))
        _require_at_most("the number of bytes of a tree", len(message.packed_parents), max_bytes)
    _require_at_most("the number of bytes of draft distributions", len(message.packed_probs), MAX_PROBS_BYTES)


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise RemoteProtocolError(complaint)


def _require_at_most(what: str, value: int, most: int) -> None:
    if value > most:
        raise RemoteProtocolError(f"{what} is {value} and this side takes {most}")


def _require_plain(what: str, text: str) -> None:
    _require(not _CONTROL.search(text), f"{what} has control characters in it")
