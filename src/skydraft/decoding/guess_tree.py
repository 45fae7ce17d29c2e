"""What the device guesses to follow the verified text: one tree that grows where it is likely to be right.

Drafting a chain, a tree, ahead of a verdict, or what follows each likely verdict is all the same: reading more nodes of
this tree. A verdict moves its root; what was guessed below the new root stays.

A node is made by its parent's guesses, or by a chain that was looked up (`add_chain`); it is unread and unoffered, and
then changes by two flags that know nothing of each other:

    unread      read      is_read       the draft model reads it, or is about to; `grow` adds its guesses then
    unoffered   offer     is_offered    the cloud was sent it; back to unoffered by `forget_offers`: the connection was
                                        lost, or the cloud dropped it (rule 1 of docs/protocol.md)

`advance` moves the root (rules 2 and 6: a verdict, or what the cloud wrote): nodes that are not below the new root are
gone, and a draft step of such a node adds nothing (`grow` looks whether the tree still contains it).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from skydraft.core import Draft, TreeShape
from skydraft.policies.confidence import Confidence
from skydraft.sampling.guesses import Guesses
from skydraft.sampling.shaping import History

LEAST_LOG_PROB = math.log(0.002)  # given the text so far: a guess below is not thought of until the text comes nearer


@dataclass(eq=False, slots=True)
class Node:
    """A token that may follow its parent's.

    token_id: None at the root of an empty text.
    position: of the token; -1 there.
    log_prob: that the text leads here, as the draft sees it, or before it has read the parent a lookup; counts from
        where the tree began.
    guesses: what the draft guesses to follow, where it has read the token; their nodes are among the children, but for
        those from num_grown on, which are too improbable (the best one never is).
    is_read: the draft model has read the token, or is about to.
    is_offered: the cloud was sent it.
    """

    token_id: int | None
    position: int
    parent: Node | None = None
    log_prob: float = 0.0
    children: dict[int, Node] = field(default_factory=dict)
    guesses: Guesses | None = None
    log_probs: Sequence[float] = ()  # of the guesses, given this node
    num_grown: int = 0
    is_read: bool = False
    is_offered: bool = False


class GuessTree:
    """Guesses of one text.

    What is asked between two draft steps is kept in lists, for it is asked often: the whole tree is walked when the
    text has grown, and then it is small.

    Args:
        confidence: turns scores into probabilities, and learns from what the text turns out to be.
    """

    def __init__(self, confidence: Confidence) -> None:
        self.root = Node(None, -1)
        self._taken_ids: list[int] = []
        self.num_offered = 0  # nodes that the cloud was sent and that may still hold
        self._confidence = confidence
        self._unread = [self.root]
        self._unoffered: list[Node] = []

    @property
    def length(self) -> int:
        """Of the text that the tree follows."""
        return self.root.position + 1

    def advance(self, token_ids: Sequence[int]) -> None:
        """The text grew by these."""
        if not token_ids:
            return
        self._taken_ids += token_ids
        for token_id in token_ids:
            self._learn(token_id)
            child = self.root.children.pop(token_id, None)
            self.root.children.clear()
            self.root = child or Node(token_id, self.root.position + 1, self.root, self.root.log_prob)
        self._look_over()

    def history(self, nodes: Sequence[Node]) -> History:
        """What stands before that which follows each of these nodes."""
        return History(tuple(self._taken_ids), tuple(self._path_ids(node) for node in nodes))

    def _path_ids(self, node: Node) -> tuple[int, ...]:
        """The tokens between the text and what follows a node."""
        path: list[int] = []
        while node.position > self.root.position:
            assert node.token_id is not None, "only the root of an empty text has no token"
            assert node.parent is not None
            path.append(node.token_id)
            node = node.parent
        return tuple(reversed(path))

    def nodes(self) -> Iterator[Node]:
        """The root and all below it, parents before their children."""
        waiting = [self.root]
        for node in waiting:
            yield node
            waiting.extend(node.children.values())

    def contains(self, node: Node) -> bool:
        """Whether a node is the root or hangs from it: the text may have gone another way."""
        above: Node | None = node
        while above is not None and above.position > self.root.position:
            above = above.parent
        return above is self.root

    def best_to_read(self, count: int, least_prob: float, end: int) -> list[Node]:
        """The most probable nodes that the draft model has not read, parents before their children.

        The root of an empty text comes alone: what may follow the prompt is known without reading a token.

        Args:
            least_prob: given the text so far; less probable ones are not worth it.
            end: positions from here on are not needed: what follows the text's last token is not asked for.
        """
        if self.root.token_id is None and not self.root.is_read:
            return [self.root]
        least, last = self.root.log_prob + math.log(least_prob), end - 1
        worth = [node for node in self._unread if node.log_prob >= least and node.position < last]
        return heapq.nlargest(count, worth, key=_log_prob)

    def read(self, nodes: Sequence[Node]) -> None:
        """The draft model reads these next."""
        for node in nodes:
            node.is_read = True
        self._unread = [node for node in self._unread if not node.is_read]

    def grow(self, node: Node, guesses: Guesses, num_ids: int) -> None:
        """Add the draft's guesses of what follows a node.

        Args:
            num_ids: ids from here on are not guessed: the target does not have them.
        """
        if not self.contains(node):
            return  # the text went another way while it was read
        node.guesses = _known(guesses, num_ids)
        node.log_probs = self._confidence.log_probabilities(node.guesses.scores) if node.guesses.scores else ()
        self._weigh(node)
        self._materialise(node)

    def add_chain(self, token_ids: Sequence[int], log_probs: Sequence[float], num_ids: int) -> None:
        """Add what may follow the text, guessed without the draft model.

        Args:
            log_probs: of each token, given those before it.
            num_ids: as of `grow`; the chain ends before such an id.
        """
        node = self.root
        for token_id, log_prob in zip(token_ids, log_probs, strict=True):
            if token_id >= num_ids:
                return
            log_prob = self._given_draft(node, token_id, log_prob)
            child = node.children.get(token_id)
            if child is None:
                child = self._add(node, token_id, log_prob)
            elif node.guesses is None:  # it was looked up before, perhaps elsewhere
                child.log_prob = max(child.log_prob, node.log_prob + log_prob)
            node = child

    def forget_offers(self) -> None:
        """What was sent is lost."""
        for node in self.nodes():
            node.is_offered = False
        self._look_over()

    def forget_ids(self, num_ids: int) -> None:
        """The target turns out to have no ids from here on: drop the guesses of them, and what hangs from these."""
        for node in self.nodes():
            for token_id in [token_id for token_id in node.children if token_id >= num_ids]:
                node.children.pop(token_id).parent = None
            if node.guesses is not None:
                pairs = zip(node.guesses.token_ids, node.log_probs, strict=True)
                node.log_probs = [log_prob for token_id, log_prob in pairs if token_id < num_ids]
                node.num_grown = sum(token_id < num_ids for token_id in node.guesses.token_ids[: node.num_grown])
                node.guesses = _known(node.guesses, num_ids)
        self._look_over()

    def unoffered(self, least_prob: float, count: int) -> list[Node]:
        """The most probable nodes that the cloud was not sent, the best first.

        A child is never more probable than its parent, so that what stands between the text and these was sent or is
        among them.
        """
        least = self.root.log_prob + (math.log(least_prob) if least_prob else -math.inf)
        worth = [node for node in self._unoffered if node.log_prob >= least]
        return heapq.nlargest(max(0, count), worth, key=_log_prob)

    def prob(self, node: Node) -> float:
        """The probability that the text leads to a node, given the text so far."""
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
        self.mark_offered(list(chosen))
        shape = TreeShape(tuple(row_of[node.parent] for node in chosen))
        return Draft(self.length, tuple(node.token_id for node in chosen if node.token_id is not None), shape)

    def mark_offered(self, nodes: Sequence[Node]) -> None:
        """These are sent."""
        self.num_offered += sum(not node.is_offered for node in nodes)
        for node in nodes:
            node.is_offered = True
        self._unoffered = [node for node in self._unoffered if not node.is_offered]

    def _look_over(self) -> None:
        """Walk the tree: what was too improbable may count now, and what is left of it makes the lists."""
        self._unread, self._unoffered = [], []
        self.num_offered = 0
        for node in self.nodes():
            if node.num_grown < len(node.log_probs):
                self._materialise(node, is_listed=False)
            if not node.is_read:
                self._unread.append(node)
            if node is self.root:
                continue
            if node.is_offered:
                self.num_offered += 1
            else:
                self._unoffered.append(node)

    def _materialise(self, node: Node, is_listed: bool = True) -> None:
        """Make nodes of those guesses behind a node that are probable enough; they come in falling order."""
        assert node.guesses is not None
        least = self.root.log_prob + LEAST_LOG_PROB - node.log_prob
        for index in range(node.num_grown, len(node.log_probs)):
            if (log_prob := node.log_probs[index]) < least and index:
                return  # but for the best one: a chain is as long as was asked for
            node.num_grown = index + 1
            if (token_id := node.guesses.token_ids[index]) not in node.children:
                self._add(node, token_id, log_prob, is_listed)

    def _add(self, node: Node, token_id: int, log_prob: float, is_listed: bool = True) -> Node:
        """A new child. log_prob: of the token, given the node."""
        child = node.children[token_id] = Node(token_id, node.position + 1, node, node.log_prob + log_prob)
        if is_listed:
            self._unread.append(child)
            self._unoffered.append(child)
        return child

    def _given_draft(self, node: Node, token_id: int, log_prob: float) -> float:
        """Of a token that was looked up, given the node: where the draft model has read the node, it knows better."""
        if node.guesses is None:
            return log_prob
        if token_id in node.guesses.token_ids:
            return node.log_probs[node.guesses.token_ids.index(token_id)]
        return log_prob + math.log(self._confidence.miss)

    def _weigh(self, node: Node) -> None:
        """The draft model has read a node behind which tokens were looked up."""
        for token_id, child in node.children.items():
            log_prob = self._given_draft(node, token_id, child.log_prob - node.log_prob)
            change = node.log_prob + log_prob - child.log_prob
            below = [child]
            for each in below:
                each.log_prob += change
                below.extend(each.children.values())

    def _learn(self, token_id: int) -> None:
        guesses = self.root.guesses
        if guesses is not None and guesses.scores:
            ids = guesses.token_ids
            self._confidence.observe(guesses.scores, ids.index(token_id) if token_id in ids else None)


def _known(guesses: Guesses, num_ids: int) -> Guesses:
    """Without what the target does not have."""
    if max(guesses.token_ids, default=0) < num_ids:
        return guesses
    pairs = [pair for pair in zip(*guesses, strict=True) if pair[0] < num_ids]
    return Guesses(tuple(token_id for token_id, _ in pairs), tuple(score for _, score in pairs))


def _log_prob(node: Node) -> float:
    return node.log_prob
