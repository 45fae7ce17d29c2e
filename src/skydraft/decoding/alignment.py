"""How an offer stands to a log: both halves of a session decide it with these functions, so that they always agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from skydraft.core import AcceptanceRule, Draft, Exact


def is_ahead(draft: Draft, log_ids: Sequence[int]) -> bool:
    """Whether the offer starts beyond the log, so that it must wait for what comes before it."""
    return draft.start > len(log_ids)


def remainder(draft: Draft, log_ids: Sequence[int]) -> Draft | None:
    """Cut the part of an offer that the log already holds.

    Args:
        draft: an offer that is not ahead of the log.
        log_ids: the verified log.
    Returns:
        What extends the log, starting at its end; None where the offer is stale: it disagrees with the log or adds
        nothing to it.
    """
    overlap = log_ids[draft.start :]
    if not overlap:
        return draft
    if draft.parents is None:
        return _chain_remainder(draft, overlap)
    return _tree_remainder(draft, overlap)


class Taken(NamedTuple):
    """What of the offers that wait is judged next.

    draft: all of it, starting at the end of the log.
    indexes: of the offers that it was made of, ascending.
    """

    draft: Draft
    indexes: tuple[int, ...]


def take(
    waiting: Sequence[Draft],
    log_ids: Sequence[int],
    rule: AcceptanceRule,
    max_nodes: int | None = None,
    max_offers: int | None = None,
) -> Taken | None:
    """Make one draft of the offers that extend the log; None where none does.

    Under `exact` an offer is a set of guesses, so that any number of them is one too; otherwise, and where tokens are
    forced, the first offer is taken alone. An offer that only repeats guesses of those before it is passed over.

    Args:
        waiting: in the order of their arrival.
        max_nodes: of the draft, unless the first offer alone has more; offers beyond wait on.
        max_offers: how many to take at most: by it the device repeats what the cloud did.
    """
    guesses = _Union()
    taken: list[int] = []
    for index, draft in enumerate(waiting):
        rest = None if is_ahead(draft, log_ids) else remainder(draft, log_ids)
        if rest is None:
            continue
        is_alone = not isinstance(rule, Exact) or bool(rest.num_forced)
        if is_alone and not taken:
            return Taken(rest, (index,))
        is_full = max_nodes is not None and bool(taken) and len(guesses) + len(rest.token_ids) > max_nodes
        if is_alone or is_full or len(taken) == max_offers:
            break
        if guesses.add(rest):
            taken.append(index)
    return Taken(guesses.draft(len(log_ids)), tuple(taken)) if taken else None


class _Union:
    """The guesses of several offers that start at the same position; nodes in order of first appearance."""

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        self._parents: list[int] = []
        self._row_of: dict[tuple[int, int], int] = {}  # (parent's row, token) -> row

    def __len__(self) -> int:
        return len(self._token_ids)

    def add(self, draft: Draft) -> bool:
        """Take in an offer; returns whether it had anything new."""
        num_before = len(self)
        rows = [0]
        for token_id, parent in zip(draft.token_ids, parents_of(draft), strict=True):
            key = (rows[parent], token_id)
            if key not in self._row_of:
                self._token_ids.append(token_id)
                self._parents.append(rows[parent])
                self._row_of[key] = len(self)
            rows.append(self._row_of[key])
        return len(self) > num_before

    def draft(self, start: int) -> Draft:
        is_chain = all(parent == node for node, parent in enumerate(self._parents))
        return Draft(start, tuple(self._token_ids), None if is_chain else tuple(self._parents))


def _chain_remainder(draft: Draft, overlap: Sequence[int]) -> Draft | None:
    num_known = len(overlap)
    if len(draft.token_ids) <= num_known or tuple(overlap) != draft.token_ids[:num_known]:
        return None
    num_known_drafted = max(0, num_known - draft.num_forced)
    return Draft(
        start=draft.start + num_known,
        token_ids=draft.token_ids[num_known:],
        num_forced=max(0, draft.num_forced - num_known),
        distributions=None if draft.distributions is None else draft.distributions[num_known_drafted:],
    )


def _tree_remainder(draft: Draft, overlap: Sequence[int]) -> Draft | None:
    assert draft.parents is not None
    root, num_followed = 0, 0
    new_index = {0: 0} if not overlap else {}
    kept: list[int] = []
    for node, parent in enumerate(draft.parents):  # parents come first, so one walk does
        if num_followed == len(overlap):
            if parent in new_index:
                new_index[node + 1] = len(kept) + 1
                kept.append(node)
        elif parent == root and draft.token_ids[node] == overlap[num_followed]:
            root, num_followed = node + 1, num_followed + 1
            new_index = {root: 0}
    if not kept:
        return None
    return Draft(
        start=draft.start + len(overlap),
        token_ids=tuple(draft.token_ids[node] for node in kept),
        parents=tuple(new_index[draft.parents[node]] for node in kept),
        num_forced=max(0, draft.num_forced - len(overlap)),
    )


def has_child(draft: Draft, row: int) -> bool:
    """Whether the draft goes on after this row."""
    return row in parents_of(draft)


def parents_of(draft: Draft) -> Sequence[int]:
    """The draft's parents, spelled out for a chain."""
    return range(len(draft.token_ids)) if draft.parents is None else draft.parents


def path_to(draft: Draft, row: int) -> tuple[int, ...]:
    """The nodes from the root to this row."""
    parents, path = parents_of(draft), []
    while row:
        path.append(row - 1)
        row = parents[row - 1]
    return tuple(reversed(path))
