"""A draft as a tree to be judged: walked from the root to the last node that is accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from skydraft.core import Draft, SamplingParams


class Walk(NamedTuple):
    """Where a walk led.

    path: the accepted nodes, root to leaf.
    row: after the last of them; None where the text ends there, so that nothing may follow.
    """

    path: tuple[int, ...]
    row: int | None


@dataclass(frozen=True)
class DraftTree:
    """A draft and where its text would end. Rows are those of `TreeShape`.

    is_over: of each row, whether the text ends there: no walk goes on from it.
    """

    draft: Draft
    is_over: tuple[bool, ...]

    @classmethod
    def read(cls, draft: Draft, params: SamplingParams) -> DraftTree:
        """Find the rows at which the text ends. The log before the draft has not ended, unless by its length."""
        ends = [draft.start >= params.max_tokens]
        num_left, end_ids = params.max_tokens - draft.start, params.end_ids
        for token_id, depth in zip(draft.token_ids, draft.shape.depths[1:], strict=True):
            ends.append(token_id in end_ids or depth >= num_left)
        return cls(draft, tuple(ends))

    def position(self, row: int) -> int:
        """Of the token that follows a row."""
        return self.draft.start + self.draft.shape.depths[row]

    def path_ids(self, row: int) -> tuple[int, ...]:
        """The tokens between the log and what follows a row."""
        return tuple(self.draft.token_ids[node] for node in self.draft.shape.path_to(row))

    @cached_property
    def forced(self) -> Walk:
        """Through the leading nodes that are not judged, up to the one that ends the text."""
        num_forced = self.draft.num_forced
        for row in range(num_forced + 1):
            if self.is_over[row]:
                return Walk(tuple(range(row)), None)
        return Walk(tuple(range(num_forced)), num_forced)

    @cached_property
    def reachable_rows(self) -> tuple[int, ...]:
        """The rows that a walk can lead to and that something may follow, ascending."""
        reachable: list[int] = []
        frontier = [] if self.forced.row is None else [self.forced.row]
        while frontier:
            row = frontier.pop()
            reachable.append(row)
            frontier += [node + 1 for node in self.draft.shape.children[row] if not self.is_over[node + 1]]
        return tuple(sorted(reachable))

    def judged_nodes(self) -> list[int]:
        """The nodes that a walk can come to, ascending."""
        return sorted(node for row in self.reachable_rows for node in self.draft.shape.children[row])

    def walk(self, accepts: Callable[[int], bool]) -> Walk:
        """Follow, from the last forced node, the first child that is accepted, for as long as there is one."""
        path, row = list(self.forced.path), self.forced.row
        while row is not None:
            node = next(filter(accepts, self.draft.shape.children[row]), None)
            if node is None:
                break
            path.append(node)
            row = None if self.is_over[node + 1] else node + 1
        return Walk(tuple(path), row)
