"""What the device guesses to follow the verified text: one tree that grows where it is likely to be right.

Drafting a chain, a tree, ahead of a verdict, or what follows each likely verdict is all the same: reading more nodes of
this tree. A verdict moves its root; what was guessed below the new root stays.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from skydraft.core import Draft
from skydraft.policies.confidence import Confidence
from skydraft.sampling.choice import Guesses

REJOIN_MEMORY = 32  # corrections that the share of texts that re-join looks back
LEAST_REJOIN = 0.02
MAX_GRAFT = 8  # tokens


@dataclass(eq=False, slots=True)
class Node:
    """A token that may follow its parent's.

    token_id: None at the root of an empty text.
    position: of the token; -1 there.
    log_prob: that the text comes by here, as the draft sees it; counts from where the tree began.
    scores: of the children, by rank.
    is_read: the draft model has read the token, or is about to.
    is_offered: the cloud was sent it.
    """

    token_id: int | None
    position: int
    parent: Node | None = None
    log_prob: float = 0.0
    children: dict[int, Node] = field(default_factory=dict)
    scores: tuple[float, ...] = ()
    is_read: bool = False
    is_offered: bool = False


class GuessTree:
    """Guesses of one text.

    Args:
        confidence: turns scores into probabilities, and learns from what the text turns out to be.
    """

    def __init__(self, confidence: Confidence) -> None:
        self.root = Node(None, -1)
        self._confidence = confidence
        self._fresh = [self.root]
        self._rejoin = 0.2  # how often a text goes on behind a correction as it was drafted behind the failed token
        self._graft: Node | None = None

    @property
    def length(self) -> int:
        """Of the text that the tree follows."""
        return self.root.position + 1

    def advance(self, token_ids: Sequence[int]) -> None:
        """The text grew by these."""
        donor: Node | None = None  # what was drafted for the same position on the branch that the text left
        for token_id in token_ids:
            self._learn(token_id)
            child = self.root.children.pop(token_id, None)
            donor = max(self.root.children.values(), key=_log_prob, default=donor and donor.children.get(token_id))
            self.root.children.clear()
            self.root = child or Node(token_id, self.root.position + 1, self.root, self.root.log_prob)
        if donor is not None and not self.root.is_read:
            self._recycle(donor)
        if token_ids:
            self._fresh = [node for node in self.nodes() if not node.is_read]

    def nodes(self) -> Iterator[Node]:
        """The root and all below it, parents before their children."""
        waiting = [self.root]
        for node in waiting:
            waiting.extend(node.children.values())
            yield node

    def holds(self, node: Node) -> bool:
        """Whether a node is the root or hangs from it: the text may have gone another way."""
        above: Node | None = node
        while above is not None and above.position > self.root.position:
            above = above.parent
        return above is self.root

    def best_to_read(self, count: int, least_prob: float, end: int) -> list[Node]:
        """The most probable nodes that the draft model has not read.

        Args:
            least_prob: given the text so far; less probable ones are not worth it.
            end: positions from here on are not needed: what follows the text's last token is not asked for.
        """
        least = self.root.log_prob + math.log(least_prob)
        worth = [node for node in self._fresh if node.log_prob >= least and node.position < end - 1]
        return heapq.nlargest(count, worth, key=_log_prob)

    def read(self, nodes: Sequence[Node]) -> None:
        """The draft model reads these next."""
        for node in nodes:
            node.is_read = True
        self._fresh = [node for node in self._fresh if not node.is_read]

    def grow(self, node: Node, guesses: Guesses, num_ids: int) -> None:
        """Add the draft's guesses of what follows a node.

        Args:
            num_ids: ids from here on are not guessed: the target does not have them.
        """
        if not self.holds(node):
            return  # the text went another way while it was read
        known = [pair for pair in zip(guesses.token_ids, guesses.scores, strict=True) if pair[0] < num_ids]
        node.scores = tuple(score for _, score in known)
        probs = self._confidence.probabilities(node.scores) if known else []
        recycled, node.children = node.children, {}
        for (token_id, _), prob in zip(known, probs, strict=True):
            child = recycled.pop(token_id, None)
            if child is None:
                child = Node(token_id, node.position + 1, node)
                self._fresh.append(child)
            _raise(child, node.log_prob + math.log(prob) - child.log_prob)
            node.children[token_id] = child
        for child in recycled.values():  # the draft, now that it has read what stands before, does not guess it
            child.parent = None

    def forget_offers(self) -> None:
        """What was sent is lost."""
        for node in self.nodes():
            node.is_offered = False

    def unoffered(self, least_prob: float, count: int) -> list[Node]:
        """The most probable nodes that the cloud was not sent, the best first."""
        least = self.root.log_prob + (math.log(least_prob) if least_prob else -math.inf)
        found: list[Node] = []
        waiting = [self.root]
        for node in waiting:  # a child is never more probable than its parent: what is below need not be looked at
            children = [child for child in node.children.values() if child.log_prob >= least]
            waiting.extend(children)
            found.extend(child for child in children if not child.is_offered)
        return heapq.nlargest(max(0, count), found, key=_log_prob)

    def num_offered(self) -> int:
        """Nodes that the cloud was sent and that may still hold."""
        return sum(node.is_offered for node in self.nodes()) - self.root.is_offered

    def prob(self, node: Node) -> float:
        """That the text comes by a node, given the text so far."""
        return math.exp(node.log_prob - self.root.log_prob)

    def offer(self, nodes: Sequence[Node]) -> Draft:
        """An offer of these nodes, with those between the root and them."""
        chosen: dict[Node, None] = {}
        for node in nodes:
            lineage = []
            while node is not self.root and node not in chosen:
                lineage.append(node)
                assert node.parent is not None
                node = node.parent
            chosen.update(dict.fromkeys(reversed(lineage)))
        row_of: dict[Node | None, int] = {self.root: 0}
        for node in chosen:
            row_of[node] = len(row_of)
            node.is_offered = True
        parents = tuple(row_of[node.parent] for node in chosen)
        is_chain = parents == tuple(range(len(parents)))
        token_ids = tuple(node.token_id for node in chosen if node.token_id is not None)
        return Draft(self.length, token_ids, None if is_chain else parents)

    def _recycle(self, donor: Node) -> None:
        """Guess that the text goes on behind its new end as it was drafted behind a node that it did not go by."""
        node, log_prob = self.root, self.root.log_prob + math.log(self._rejoin)
        for _ in range(MAX_GRAFT):
            model = max(donor.children.values(), key=_log_prob, default=None)
            if model is None or model.token_id is None:
                return
            child = Node(model.token_id, node.position + 1, node, log_prob + model.log_prob - donor.log_prob)
            node.children[model.token_id] = child
            self._graft = self._graft if node is not self.root else child
            node, donor, log_prob = child, model, child.log_prob

    def _learn(self, token_id: int) -> None:
        if self._graft is not None and self._graft.position == self.root.position + 1:
            self._rejoin += ((self._graft.token_id == token_id) - self._rejoin) / REJOIN_MEMORY
            self._rejoin, self._graft = max(self._rejoin, LEAST_REJOIN), None
        if self.root.scores:
            ids = list(self.root.children)
            self._confidence.observe(self.root.scores, ids.index(token_id) if token_id in ids else None)


def _log_prob(node: Node) -> float:
    return node.log_prob


def _raise(node: Node, difference: float) -> None:
    """Change the log-probability of a node and all below it."""
    waiting = [node]
    for each in waiting:
        each.log_prob += difference
        waiting.extend(each.children.values())
