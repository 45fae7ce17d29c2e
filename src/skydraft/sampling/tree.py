"""A draft as a tree: checked, walked from the root to the last node that holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from skydraft.core import Draft, SamplingParams
from skydraft.errors import RemoteProtocolError


class Walk(NamedTuple):
    """Where a walk led.

    path: the nodes that hold, root to leaf.
    row: after the last of them; None where the text ends there, so that nothing may follow.
    """

    path: tuple[int, ...]
    row: int | None


@dataclass(frozen=True)
class DraftTree:
    """The nodes of a draft by row: row 0 is the root and row i + 1 is after node i.

    parents: the row that judges each node.
    children: of each row, in the draft's order.
    positions: of what follows each row.
    is_over: of each row, whether the text ends there: no walk goes on from it.
    forced: the walk through the leading nodes that hold unconditionally.
    """

    parents: tuple[int, ...]
    children: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]
    is_over: tuple[bool, ...]
    forced: Walk

    def reachable_rows(self) -> list[int]:
        """The rows that a walk can lead to and that something may follow, ascending."""
        reachable: list[int] = []
        frontier = [] if self.forced.row is None else [self.forced.row]
        while frontier:
            row = frontier.pop()
            reachable.append(row)
            frontier += [node + 1 for node in self.children[row] if not self.is_over[node + 1]]
        reachable.sort()
        return reachable

    def judged_nodes(self) -> list[int]:
        """The nodes that a walk can come to, ascending."""
        return sorted(node for row in self.reachable_rows() for node in self.children[row])

    def walk(self, holds: Callable[[int], bool]) -> Walk:
        """Follow, from the last forced node, the first child that holds, for as long as there is one."""
        path, row = list(self.forced.path), self.forced.row
        while row is not None:
            node = next(filter(holds, self.children[row]), None)
            if node is None:
                break
            path.append(node)
            row = None if self.is_over[node + 1] else node + 1
        return Walk(tuple(path), row)


def read_tree(draft: Draft, params: SamplingParams) -> DraftTree:
    """Check a draft's shape and number its rows.

    Raises:
        RemoteProtocolError: the parents are no tree with parents before children, two siblings are the same token, the
            forced nodes are no leading chain, or the start is negative.
    """
    parents = _checked_parents(draft)
    children: list[list[int]] = [[] for _ in range(len(parents) + 1)]
    positions = [draft.start]
    is_over = [draft.start >= params.max_tokens]
    for node, (parent, token_id) in enumerate(zip(parents, draft.token_ids, strict=True)):
        children[parent].append(node)
        positions.append(positions[parent] + 1)
        is_over.append(token_id in params.end_ids or positions[-1] >= params.max_tokens)
    if draft.parents is not None:
        _check_siblings(draft, children)
    forced = _forced_walk(draft.num_forced, is_over)
    return DraftTree(parents, tuple(map(tuple, children)), tuple(positions), tuple(is_over), forced)


def _checked_parents(draft: Draft) -> tuple[int, ...]:
    num_nodes = len(draft.token_ids)
    parents = tuple(range(num_nodes)) if draft.parents is None else draft.parents
    if draft.start < 0:
        raise RemoteProtocolError(f"the draft starts at position {draft.start} and must start at 0 or later")
    if len(parents) != num_nodes:
        raise RemoteProtocolError(f"the draft has {num_nodes} tokens and {len(parents)} parents; it must have one each")
    for node, parent in enumerate(draft.parents or ()):
        if not 0 <= parent <= node:
            raise RemoteProtocolError(f"node {node} of the draft has parent {parent}; it must be from 0 to {node}")
    if not 0 <= draft.num_forced <= num_nodes:
        raise RemoteProtocolError(
            f"{draft.num_forced} of the draft's {num_nodes} tokens are forced; at most all can be"
        )
    if parents[: draft.num_forced] != tuple(range(draft.num_forced)):
        raise RemoteProtocolError(
            f"the {draft.num_forced} forced tokens of the draft have parents {list(parents[: draft.num_forced])}; "
            "they must be a chain from the root"
        )
    return parents


def _check_siblings(draft: Draft, children: list[list[int]]) -> None:
    for row, nodes in enumerate(children):
        token_ids = [draft.token_ids[node] for node in nodes]
        if len(set(token_ids)) < len(token_ids):
            raise RemoteProtocolError(f"parent {row} of the draft has the same token twice among {token_ids}")


def _forced_walk(num_forced: int, is_over: list[bool]) -> Walk:
    """Through the leading chain, up to the token that ends the text."""
    for row in range(num_forced + 1):
        if is_over[row]:
            return Walk(tuple(range(row)), None)
    return Walk(tuple(range(num_forced)), num_forced)
