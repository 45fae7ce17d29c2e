"""The shape of a tree of tokens: one convention for drafts, engines and acceptance.

Nodes are numbered so that parents come before their children. Row 0 is the root, what stands before the tree, and row
i + 1 is node i. `parents[i]` is the row that node i hangs from: 0 for a child of the root, j + 1 for a child of node j.
So row parents[i] of a model's logits judges node i. A chain has parents[i] = i.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache


@dataclass(frozen=True)
class TreeShape:
    """A tree without its tokens. `check` says whether it is one; all else relies on that.

    parents: the row that each node hangs from.
    """

    parents: tuple[int, ...]

    @staticmethod
    @lru_cache(maxsize=512)
    def chain(num_nodes: int) -> TreeShape:
        """Each node the only child of the one before it."""
        return TreeShape(tuple(range(num_nodes)))

    def check(self) -> TreeShape:
        """Returns itself.

        Raises:
            ValueError: a node does not come after its parent.
        """
        for node, parent in enumerate(self.parents):
            if not 0 <= parent <= node:
                raise ValueError(f"node {node} hangs from row {parent}, which must be 0 to {node}")
        return self

    def __len__(self) -> int:
        return len(self.parents)

    @cached_property
    def num_in_chain(self) -> int:
        """How many of the first nodes follow one another from the root."""
        return next((node for node, parent in enumerate(self.parents) if parent != node), len(self.parents))

    @cached_property
    def is_chain(self) -> bool:
        return self.num_in_chain == len(self.parents)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Of each row, the nodes that hang from it, ascending."""
        children: list[list[int]] = [[] for _ in range(len(self.parents) + 1)]
        for node, parent in enumerate(self.parents):
            children[parent].append(node)
        return tuple(map(tuple, children))

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Of each row: 0 is the root."""
        depths = [0]
        for parent in self.parents:
            depths.append(depths[parent] + 1)
        return tuple(depths)

    def path_to(self, row: int) -> tuple[int, ...]:
        """The nodes from the root to a row, the row's own included."""
        path: list[int] = []
        while row:
            path.append(row - 1)
            row = self.parents[row - 1]
        return tuple(reversed(path))

    def has_path(self, nodes: Sequence[int]) -> bool:
        """Whether each of these nodes is the parent of the next, and the first a child of the root."""
        row = 0
        for node in nodes:
            if not 0 <= node < len(self.parents) or self.parents[node] != row:
                return False
            row = node + 1
        return True

    def nodes_below(self, row: int) -> list[int]:
        """The nodes that hang from a row, directly or through others, ascending."""
        below = {row}
        nodes: list[int] = []
        for node, parent in enumerate(self.parents):
            if parent in below:
                below.add(node + 1)
                nodes.append(node)
        return nodes

    def below_chain(self, num_nodes: int) -> TreeShape:
        """The same tree with a chain before it, whose last node is its root."""
        if not num_nodes:
            return self
        if self.is_chain:
            return TreeShape.chain(num_nodes + len(self.parents))
        return TreeShape((*range(num_nodes), *(parent + num_nodes for parent in self.parents)))

    def first(self, num_nodes: int) -> TreeShape:
        """The tree of the first nodes alone."""
        return self if num_nodes >= len(self.parents) else TreeShape(self.parents[:num_nodes])

    def subtree(self, root: int, nodes: Iterable[int]) -> TreeShape:
        """The tree of some nodes below a row, which becomes the root.

        Args:
            nodes: ascending; the parent of each is the root or among them.
        Raises:
            ValueError: the parent of a node is missing, or a node comes twice or out of order.
        """
        new_row, last = {root: 0}, -1
        parents: list[int] = []
        for node in nodes:
            if not last < node < len(self.parents) or self.parents[node] not in new_row:
                raise ValueError(
                    f"node {node} cannot be kept: its parent is not, or it was named twice or out of order"
                )
            parents.append(new_row[self.parents[node]])
            new_row[node + 1], last = len(parents), node
        return TreeShape(tuple(parents))
