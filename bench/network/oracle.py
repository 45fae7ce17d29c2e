"""The limit: a device that knows which of its guesses hold, and neither reads nor offers others."""

from __future__ import annotations

from collections.abc import Sequence

from skydraft.decoding.guess_tree import GuessTree, Node
from skydraft.policies.confidence import Confidence
from skydraft.sampling.guesses import Guesses


class OracleTree(GuessTree):
    """Guesses that hold.

    It still has only what the draft model thinks of: where the text's token is not among the guesses, the cloud must
    tell it.

    Args:
        text_ids: that the target will have written.
        must_ask: the cloud writes nothing by itself: where nothing right can be offered, something wrong is.
    """

    def __init__(self, text_ids: Sequence[int], must_ask: bool) -> None:
        super().__init__(Confidence())
        self._text_ids = text_ids
        self._must_ask = must_ask
        self._wrong: dict[Node, int] = {}

    def grow(self, node: Node, guesses: Guesses, num_ids: int) -> None:
        if not self.contains(node):
            return
        position = node.position + 1
        token_id = self._text_ids[position] if position < len(self._text_ids) else None
        if token_id in guesses.token_ids:
            child = Node(token_id, position, node, node.log_prob)
            node.children[child.token_id or 0] = child
            self._unread.append(child)
            self._unoffered.append(child)
        else:
            self._wrong[node] = guesses.token_ids[0]

    def unoffered(self, least_prob: float, count: int) -> list[Node]:
        found = super().unoffered(least_prob, count)
        if found or not self._must_ask or self.root not in self._wrong:
            return found
        child = Node(self._wrong[self.root], self.root.position + 1, self.root, self.root.log_prob, is_read=True)
        self.root.children[child.token_id or 0] = child
        return [child]
