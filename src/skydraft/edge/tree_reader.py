"""Reads nodes of a guess tree with a draft model: keeps the slot's KV cache in step with the tree.

The slot holds the first tokens of the text (its trunk) and then nodes of the tree in the order in which they were read.
When the text has grown, the nodes that it went by join the trunk and those that it left are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skydraft.core.tree_shape import TreeShape
from skydraft.decoding.guess_tree import GuessTree, Node
from skydraft.edge.draft_lease import DraftLease, Passes
from skydraft.engines.base import Array, Engine, Extension
from skydraft.sampling.shaping import History


@dataclass(frozen=True)
class DraftStep:
    """One draft step: what is dropped, then what is read.

    start: of the slot's tree, in generated tokens, before this step.
    path, rest: of the nodes read so far, those to keep: None keeps all.
    nodes: that are read; guesses are wanted after each.
    history: of what follows each of them.
    token_ids: to append, those that the slot lacks before the nodes first; empty where only the logits after the
        prompt are asked for.
    shape: of the slot's tree then.
    """

    start: int
    path: tuple[int, ...] | None
    rest: tuple[int, ...]
    nodes: tuple[Node, ...]
    history: History
    token_ids: tuple[int, ...]
    shape: TreeShape


class TreeReader:
    """One text on one slot. `plan` and `run` are called in turns: plan in the thread of the tree, run in any other.

    A slot that was lost and filled again has a new reader: nodes that the tree knows and the slot does not are read
    again when something below them is to be read.

    Args:
        prompt_row: float [vocab_size], after the prompt; of no use where num_held is not 0.
        num_held: generated tokens that the slot has read.
    """

    def __init__(self, engine: Engine, lease: DraftLease, prompt_row: Array, num_held: int) -> None:
        self._engine = engine
        self._lease = lease
        self._prompt_row = prompt_row
        self._start = num_held  # generated tokens in the trunk
        self._row_of: dict[Node, int] = {}  # nodes that the slot holds behind its trunk; 1 is the first
        self._shape = TreeShape.chain(0)  # that they make in the slot: the guess tree may have let go of some

    @property
    def num_held(self) -> int:
        """How many of the text's tokens the slot holds in front of the tree."""
        return self._start

    def plan(self, tree: GuessTree, nodes: Sequence[Node]) -> DraftStep:
        """Say how to read these nodes.

        Args:
            nodes: parents before their children; each a child of a node that was read, or the root.
        """
        start, root = self._start, tree.root
        missing = self._missing(root)
        path, rest = self._drop(tree, missing)
        wanted = [node for node in nodes if node is not root and node.position >= self._start]
        new = [*missing, *self._lost(root, wanted), *wanted]
        parents = list(self._shape.parents)
        for node in new:
            parents.append(self._row_of.get(node.parent, 0) if node.parent else 0)
            self._row_of[node] = len(parents)
        self._shape = TreeShape(tuple(parents))
        token_ids = tuple(node.token_id for node in new if node.token_id is not None)
        return DraftStep(start, path, rest, tuple(nodes), tree.history(nodes), token_ids, self._shape)

    def run(self, step: DraftStep) -> Passes[Array]:
        """Returns the logits [num_tokens, vocab_size] after each token read; [1, vocab_size] after the prompt."""
        if step.path is not None:
            self._lease.keep_path(self._engine, step.start, step.path, step.rest)
        if not step.token_ids:
            return self._prompt_row[None, :]
        return (yield Extension(self._lease.open_slot, step.token_ids, step.shape))

    def _missing(self, root: Node) -> list[Node]:
        """Tokens of the text that the slot has not read, the last of them the root."""
        missing: list[Node] = []
        node: Node | None = root
        while node is not None and node.position >= self._start and node not in self._row_of:
            missing.append(node)
            node = node.parent
        return missing[::-1]

    def _lost(self, root: Node, wanted: Sequence[Node]) -> dict[Node, None]:
        """Nodes between the root and those that are wanted that the slot does not hold any more, parents first."""
        lost: dict[Node, None] = {}
        known = {root, *self._row_of, *wanted}
        for node in wanted:
            lineage = []
            above = node.parent
            while above is not None and above not in known and above not in lost:
                lineage.append(above)
                above = above.parent
            lost.update(dict.fromkeys(reversed(lineage)))
        return lost

    def _drop(self, tree: GuessTree, missing: Sequence[Node]) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
        """Forget what the text left; what it went by joins the trunk."""
        last = missing[0].parent if missing else tree.root
        lineage = _lineage(last, self._start)
        if not self._row_of or not (lineage or missing):
            return None, ()
        path = [node for node in lineage if node in self._row_of]
        below = [] if missing else [node for node in self._row_of if node is not tree.root and tree.contains(node)]
        kept_path = tuple(self._row_of[node] - 1 for node in path)
        kept_rest = tuple(self._row_of[node] - 1 for node in below)
        self._shape = self._shape.subtree(kept_path[-1] + 1 if kept_path else 0, kept_rest)
        self._start += len(path)
        self._row_of = {node: row for row, node in enumerate(below, start=1)}
        return kept_path, kept_rest


def _lineage(node: Node | None, start: int) -> list[Node]:
    """A node and its ancestors from position `start` on, the first first."""
    lineage: list[Node] = []
    while node is not None and node.position >= start:
        lineage.append(node)
        node = node.parent
    return lineage[::-1]
