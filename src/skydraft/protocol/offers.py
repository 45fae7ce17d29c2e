"""core.Draft <-> messages.Draft."""

from __future__ import annotations

from collections.abc import Sequence

from skydraft import core
from skydraft.core import AcceptanceRule, Rejection
from skydraft.errors import LocalProtocolError, RemoteProtocolError
from skydraft.protocol import messages
from skydraft.protocol.limits import MAX_DRAFT_TOKENS
from skydraft.protocol.packing import (
    id_bits,
    num_packed_ids,
    pack_ids,
    pack_parents,
    pack_probs,
    unpack_ids,
    unpack_parents,
    unpack_probs,
)


def to_wire(draft: core.Draft, session: int, num_tokens: int, rule: AcceptanceRule) -> messages.Draft:
    """Put an offer into the form in which it travels.

    Args:
        session: the device's number for the session.
        num_tokens: of the device's vocabulary.
        rule: under `rejection` every token that is not forced has its distribution, otherwise none has.
    Raises:
        LocalProtocolError: the offer is not one, or cannot be sent under this rule.
    """
    _check_local(draft, rule)
    packed_ids, packed_probs = draft.token_ids, b""
    if isinstance(rule, Rejection):
        packed_ids, drawn_ids = draft.token_ids[: draft.num_forced], draft.token_ids[draft.num_forced :]
        packed_probs = pack_probs(drawn_ids, draft.distributions or (), num_tokens, rule)
    return messages.Draft(
        start=draft.start,
        packed_ids=pack_ids(packed_ids, id_bits(num_tokens)),
        session=session,
        num_forced=draft.num_forced,
        packed_parents=b"" if draft.parents is None else pack_parents(_tree_of(draft.parents, draft.num_forced)),
        packed_probs=packed_probs,
    )


def _check_local(draft: core.Draft, rule: AcceptanceRule) -> None:
    num_ids, num_forced, parents = len(draft.token_ids), draft.num_forced, draft.parents
    if not num_ids or not 0 <= num_forced <= num_ids:
        raise LocalProtocolError(f"an offer of {num_ids} tokens cannot be sent with {num_forced} of them forced")
    if parents is not None and (len(parents) != num_ids or parents[:num_forced] != tuple(range(num_forced))):
        raise LocalProtocolError(
            f"an offer of {num_ids} tokens has {len(parents)} parents; it must have as many, and its {num_forced} "
            "forced tokens must come first, as a chain"
        )
    is_drawn = isinstance(rule, Rejection)
    num_needed, num_given = (num_ids - num_forced) * is_drawn, len(draft.distributions or ())
    if num_needed != num_given or (is_drawn and parents is not None):
        raise LocalProtocolError(
            f"under the rule {rule} this offer needs {num_needed} draft distributions and has {num_given}; with "
            "draft distributions it must be a chain"
        )


def _tree_of(parents: Sequence[int], num_forced: int) -> list[int]:
    """Parents of the nodes that are not forced, with the last forced token as the root."""
    return [parent - num_forced for parent in parents[num_forced:]]


def from_wire(
    message: messages.Draft, num_tokens: int, rule: AcceptanceRule, max_draft_tokens: int = MAX_DRAFT_TOKENS
) -> core.Draft:
    """Read an offer.

    Args:
        num_tokens, rule: as for `to_wire`.
        max_draft_tokens: how many tokens that are not forced it may have.
    Raises:
        RemoteProtocolError: it is not an offer under this rule, or is too long.
    """
    num_bits, num_forced = id_bits(num_tokens), message.num_forced
    num_ids = num_packed_ids(len(message.packed_ids), num_bits)
    _check_remote(message, num_ids, rule)
    _require_length(num_ids - num_forced, max_draft_tokens)
    token_ids = unpack_ids(message.packed_ids, num_bits, num_tokens)
    parents, distributions = None, None
    if message.packed_parents:
        tree = unpack_parents(message.packed_parents, num_ids - num_forced)
        parents = (*range(num_forced), *(parent + num_forced for parent in tree))
    if isinstance(rule, Rejection) and message.packed_probs:
        drawn_ids, distributions = unpack_probs(message.packed_probs, num_tokens, rule)
        _require_length(len(drawn_ids), max_draft_tokens)
        token_ids += drawn_ids
    return core.Draft(message.start, token_ids, parents, num_forced, distributions)


def _check_remote(message: messages.Draft, num_ids: int, rule: AcceptanceRule) -> None:
    if message.num_forced > num_ids:
        raise RemoteProtocolError(f"an offer of {num_ids} packed tokens says that {message.num_forced} are forced")
    is_drawn = isinstance(rule, Rejection)
    if not is_drawn and message.packed_probs:
        raise RemoteProtocolError(f"an offer has draft distributions and the rule is {rule}, which has none")
    if is_drawn and (message.num_forced != num_ids or message.packed_parents):
        raise RemoteProtocolError(
            f"under the rule {rule} an offer is a chain and its packed tokens are all forced; of {num_ids} packed "
            f"tokens {message.num_forced} are forced"
        )


def _require_length(num_judged: int, max_draft_tokens: int) -> None:
    if num_judged > max_draft_tokens:
        raise RemoteProtocolError(
            f"an offer has {num_judged} tokens that are not forced and this side takes {max_draft_tokens}"
        )
