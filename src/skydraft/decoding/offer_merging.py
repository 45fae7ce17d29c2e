"""How offers stand to a log, and how several become one: both halves of a session decide it here, so they agree."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from skydraft.core import Draft, TreeShape


def is_ahead(draft: Draft, log_ids: Sequence[int]) -> bool:
    """Whether the offer starts beyond the log, so that it must wait for what comes before it."""
    return draft.start > len(log_ids)


def extension(draft: Draft, log_ids: Sequence[int]) -> Draft | None:
    """Cut off the part of an offer that the log already holds.

    Returns:
        What extends the verified log, starting at its end; None where the offer is ahead of it, or is stale: it
        disagrees with the log or adds nothing to it.
    """
    if is_ahead(draft, log_ids):
        return None
    overlap = log_ids[draft.start :]
    if not overlap:
        return draft
    num_known, num_nodes = len(overlap), len(draft.token_ids)
    if draft.shape.is_chain:
        if num_nodes <= num_known or tuple(overlap) != draft.token_ids[:num_known]:
            return None
        kept, shape = list(range(num_known, num_nodes)), TreeShape.chain(num_nodes - num_known)
    else:
        row = 0
        for token_id in overlap:
            node = next((child for child in draft.shape.children[row] if draft.token_ids[child] == token_id), None)
            if node is None:
                return None
            row = node + 1
        kept = draft.shape.nodes_below(row)
        if not kept:
            return None
        shape = draft.shape.subtree(row, kept)
    num_forced = max(0, draft.num_forced - num_known)
    distributions = None
    if draft.distributions is not None:  # those of judged tokens only, and the offer is a chain
        distributions = draft.distributions[max(0, num_known - draft.num_forced) :]
    return Draft(
        draft.start + num_known, tuple(draft.token_ids[node] for node in kept), shape, num_forced, distributions
    )


def without_stale(drafts: Iterable[Draft], log_ids: Sequence[int]) -> deque[Draft]:
    """The offers that may still extend the log, now or later: rule 1."""
    return deque(draft for draft in drafts if is_ahead(draft, log_ids) or extension(draft, log_ids))


class MergedOffer(NamedTuple):
    """What of the offers that wait is judged next.

    draft: all of it, starting at the end of the log.
    indexes: of the offers that it was made of, ascending.
    """

    draft: Draft
    indexes: tuple[int, ...]


def merge_offers(
    waiting: Sequence[Draft],
    log_ids: Sequence[int],
    is_set_of_guesses: bool,
    max_nodes: int | None = None,
    max_offers: int | None = None,
) -> MergedOffer | None:
    """Make one draft of the offers that extend the log; None where none does.

    An offer that only repeats guesses of those before it is passed over. The first that has forced tokens is taken
    alone, as is any where offers are no sets of guesses.

    Args:
        waiting: in the order of their arrival.
        is_set_of_guesses: `AcceptanceRule.merges_offers`: any number of offers is one offer too.
        max_nodes: of the draft, unless the first offer alone has more; offers beyond wait on.
        max_offers: how many to take at most: by it the device repeats what the cloud did.
    """
    token_ids: list[int] = []
    parents: list[int] = []
    row_of: dict[tuple[int, int], int] = {}  # (parent's row, token) -> row
    taken: list[int] = []
    for index, draft in enumerate(waiting):
        part = extension(draft, log_ids)
        if part is None:
            continue
        is_alone = not is_set_of_guesses or bool(part.num_forced)
        if is_alone and not taken:
            return MergedOffer(part, (index,))
        is_full = max_nodes is not None and bool(taken) and len(token_ids) + len(part.token_ids) > max_nodes
        if is_alone or is_full or len(taken) == max_offers:
            break
        num_before, rows = len(token_ids), [0]
        for token_id, parent in zip(part.token_ids, part.shape.parents, strict=True):
            row = row_of.setdefault((rows[parent], token_id), len(token_ids) + 1)
            if row > len(token_ids):
                token_ids.append(token_id)
                parents.append(rows[parent])
            rows.append(row)
        if len(token_ids) > num_before:
            taken.append(index)
    if not taken:
        return None
    return MergedOffer(Draft(len(log_ids), tuple(token_ids), TreeShape(tuple(parents))), tuple(taken))


def fitting(draft: Draft, is_set_of_guesses: bool, room: int) -> Draft:
    """The first guesses of a draft, as many as a slot has room for.

    Args:
        is_set_of_guesses: `AcceptanceRule.merges_offers`: otherwise nothing may be left out.
        room: positions of the text.
    """
    count = max(draft.num_forced, room - draft.start)
    if count >= len(draft.token_ids) or not is_set_of_guesses:
        return draft
    return Draft(draft.start, draft.token_ids[:count], draft.shape.first(count), draft.num_forced)
