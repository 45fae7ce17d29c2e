"""core.Draft <-> messages.Offer."""

from __future__ import annotations

from skydraft.core import AcceptanceRule, Draft
from skydraft.errors import LocalProtocolError, RemoteProtocolError
from skydraft.protocol.limits import MAX_DRAFT_TOKENS, MAX_TEXT_TOKENS
from skydraft.protocol.messages import Offer
from skydraft.protocol.packing import (
    id_bits,
    num_packed_ids,
    pack,
    pack_parents,
    pack_probs,
    unpack_ids,
    unpack_parents,
    unpack_probs,
)


def to_wire(draft: Draft, session: int, num_tokens: int, rule: AcceptanceRule) -> Offer:
    """Put an offer into the form in which it travels.

    Args:
        session: the device's number for the session.
        num_tokens: of the device's vocabulary.
        rule: where it draws drafts every token that is not forced has its distribution, otherwise none has.
    Raises:
        LocalProtocolError: the offer is not one, or cannot be sent under this rule.
    """
    num_forced, shape, lattice = draft.num_forced, draft.shape, rule.draft_lattice
    try:
        draft.check()
        judged_shape = shape if shape.is_chain else shape.subtree(num_forced, range(num_forced, len(shape)))
    except ValueError as error:
        raise LocalProtocolError(f"an offer cannot be sent: {error}") from error
    if not draft.token_ids:
        raise LocalProtocolError("an offer without tokens cannot be sent")
    num_needed, num_given = draft.num_judged if lattice else 0, len(draft.distributions or ())
    if num_needed != num_given or (lattice and not shape.is_chain):
        raise LocalProtocolError(
            f"under the rule {rule} this offer needs {num_needed} draft distributions and has {num_given}; with "
            "draft distributions it must be a chain"
        )
    packed_ids, packed_probs = draft.token_ids, b""
    if lattice is not None:
        packed_ids, drawn_ids = draft.token_ids[:num_forced], draft.token_ids[num_forced:]
        packed_probs = pack_probs(drawn_ids, draft.distributions or (), num_tokens, lattice)
    return Offer(
        start=draft.start,
        packed_ids=pack(packed_ids, id_bits(num_tokens)),
        session=session,
        num_forced=num_forced,
        packed_parents=pack_parents(judged_shape),
        packed_probs=packed_probs,
    )


def from_wire(
    offer: Offer,
    num_tokens: int,
    rule: AcceptanceRule,
    max_draft_tokens: int = MAX_DRAFT_TOKENS,
    max_end: int = MAX_TEXT_TOKENS + MAX_DRAFT_TOKENS,
) -> Draft:
    """Read an offer. Counts are compared with what is allowed before anything is unpacked.

    Args:
        num_tokens, rule: as for `to_wire`.
        max_draft_tokens: how many tokens that are not forced it may have.
        max_end: start and number of tokens together: beyond the end of a text nothing is wanted.
    Raises:
        RemoteProtocolError: it is not an offer under this rule, or is too long.
    """
    num_bits, num_forced, lattice = id_bits(num_tokens), offer.num_forced, rule.draft_lattice
    num_ids = num_packed_ids(len(offer.packed_ids), num_bits)
    if num_forced > num_ids:
        raise RemoteProtocolError(f"an offer of {num_ids} packed tokens says that {num_forced} are forced")
    if lattice is None and offer.packed_probs:
        raise RemoteProtocolError(f"an offer has draft distributions and the rule is {rule}, which has none")
    if lattice is not None and (num_forced != num_ids or offer.packed_parents):
        raise RemoteProtocolError(
            f"under the rule {rule} an offer is a chain and its packed tokens are all forced; of {num_ids} packed "
            f"tokens {num_forced} are forced"
        )
    if num_ids - num_forced > max_draft_tokens:
        raise _too_long(num_ids - num_forced, max_draft_tokens)
    if offer.start + num_ids > max_end:
        raise RemoteProtocolError(
            f"an offer reaches to position {offer.start + num_ids} and this side takes none beyond {max_end}"
        )
    token_ids = unpack_ids(offer.packed_ids, num_bits, num_tokens)
    distributions = None
    if lattice is not None and offer.packed_probs:
        drawn_ids, distributions = unpack_probs(offer.packed_probs, num_tokens, lattice)
        if len(drawn_ids) > max_draft_tokens:
            raise _too_long(len(drawn_ids), max_draft_tokens)
        token_ids += drawn_ids
    shape = unpack_parents(offer.packed_parents, len(token_ids) - num_forced)
    try:
        return Draft(offer.start, token_ids, shape.below_chain(num_forced), num_forced, distributions).check()
    except ValueError as error:
        raise RemoteProtocolError(f"an offer is wrong: {error}") from error


def _too_long(num_judged: int, max_draft_tokens: int) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"an offer has {num_judged} tokens that are not forced and this side takes {max_draft_tokens}"
    )
