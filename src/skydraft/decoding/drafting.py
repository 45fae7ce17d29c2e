"""When to draft what, and when to offer it: the device's half of hybrid decoding under `exact`. No sockets, no clocks.

One tree of guesses grows where it is likely to be right, and offers are cut from it. A draft model makes the guesses,
or they are looked up (`decoding/lookup`), or both: it is the same tree, and the likeliest are sent.

The ways to draft that the field knows differ in a few numbers only (`policies/way`): how wide a draft step is, what an
offer waits for, how many are in flight, and whether the cloud writes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from skydraft.decoding.edge_session import EdgeSession
from skydraft.decoding.guess_tree import GuessTree, Node
from skydraft.decoding.lookup import Lookup
from skydraft.policies.planner import Planner
from skydraft.policies.way import CLOUD
from skydraft.sampling.guesses import Guesses


class Drafting:
    """Drafts for one session, whose rule is `exact`.

    Args:
        planner: says how; it learns from what becomes of the drafts.
        now_s: seconds on any clock, when the text begins.
        lookup: of guesses that need no model; None: there are none.

    Attributes:
        is_held_up: the text is not to grow; set from outside.
    """

    def __init__(self, session: EdgeSession, planner: Planner, now_s: float, lookup: Lookup | None = None) -> None:
        self.way = planner.begin(now_s)
        self.tree = GuessTree(planner.habits.confidence)
        self._session = session
        self._planner = planner
        self._lookup = lookup
        self._reading: Sequence[Node] = ()
        self._has_given_up = False
        self.is_held_up = False
        self._num_ids = session.num_shared_ids
        self.tree.advance(session.token_ids)
        self._look_up(session.token_ids)

    def saw_connection(self) -> None:
        """The cloud was asked to begin or to go on: it may be another one, with another vocabulary."""
        self._forget_unknown_ids()

    def saw_answer(self) -> None:
        """The session took in an answer, and so did the planner: follow both."""
        session = self._session
        self._forget_unknown_ids()
        new_ids = session.token_ids[self.tree.length :]
        self.tree.advance(new_ids)
        if self.tree.num_offered and not session.num_in_flight:  # rule 1: the cloud dropped what it has no ids for
            self.tree.forget_offers()
        self._look_for_a_dead_end()
        if not self._has_given_up:
            self.way = self._planner.way
        self._look_up(new_ids)

    def saw_loss(self) -> None:
        """The connection is lost, and what was in flight with it."""
        self.tree.forget_offers()

    def give_up(self) -> None:
        """The device cannot draft any more: the cloud writes the rest."""
        self._has_given_up, self.way = True, CLOUD
        self._planner.stop_drafting()

    def give_credit(self) -> None:
        """Have the cloud write on by itself, or not, as the way to draft says."""
        session = self._session
        up_to = session.sampling.max_tokens if self.way.has_credit and not self.is_held_up else 0
        if session.has_credit != bool(up_to):
            session.give_credit(up_to)

    def next_step(self) -> list[Node]:
        """What the draft model should read next; empty where nothing is worth it before an answer comes."""
        if self._session.is_complete or not self.way.width or self.is_held_up:
            return []
        if self._session.num_in_flight and not self.way.is_eager:
            return []
        nodes = self._reading = self._worth_reading(self.way.width)
        self.tree.read(nodes)
        return nodes

    def saw_draft_step(self, nodes: Sequence[Node], guesses: Sequence[Guesses], num_read: int, seconds: float) -> None:
        """The draft model has read what `next_step` gave.

        Args:
            num_read: tokens that it read for that; 0: the guesses behind the prompt were known.
            seconds: that it took.
        """
        if num_read:
            self._planner.saw_draft_step(num_read, seconds)
        self._reading = ()
        for node, guess in zip(nodes, guesses, strict=True):
            self.tree.grow(node, guess, self._session.num_shared_ids)
        self._look_for_a_dead_end()

    def offer(self) -> None:
        """Have the session offer what is to be sent now."""
        session, way = self._session, self.way
        if not session.can_follow or session.is_complete or self.is_held_up:
            return
        if session.is_behind:  # rule 5: what the cloud lacks goes first
            if not session.num_in_flight:
                session.offer(())
            return
        while session.num_in_flight < min(way.max_in_flight, session.limits.max_in_flight):
            if way.block_length:
                nodes, start = self._block()
                if not nodes:
                    return
                self.tree.mark_offered(nodes)
                session.offer([node.token_id for node in nodes if node.token_id is not None], start=start)
                continue
            most = session.limits.max_draft_tokens - self.tree.num_offered
            nodes = self.tree.unoffered(way.least_offer_prob, most)
            if not nodes and not self._is_moving():
                nodes = self.tree.unoffered(0.0, 1)  # however improbable: else the text would stand still
            if not nodes or self._waits_for_more(nodes):
                return
            draft = self.tree.offer(nodes)
            session.offer(draft.token_ids, draft.shape)

    def _waits_for_more(self, nodes: Sequence[Node]) -> bool:
        """Whether an offer of these is better sent later, with more."""
        way = self.way
        if way.is_patient and self._is_worth_waiting():
            return True
        return self._is_moving() and sum(map(self.tree.prob, nodes)) < way.least_gain

    def _is_moving(self) -> bool:
        """Whether more will come without an offer of what there is."""
        return bool(self.way.has_credit or self._session.num_in_flight or self._coming(1))

    def _look_up(self, new_ids: Sequence[int]) -> None:
        """Follow the text, and add what can be looked up to the tree; not where offers are chains of the draft's."""
        if self._lookup is None:
            return
        self._lookup.follow(new_ids)
        session = self._session
        if self.way.block_length or session.is_complete:
            return
        num_left = min(session.limits.max_draft_tokens, session.sampling.max_tokens - self.tree.length)
        for chain in self._lookup.chains(self._planner.least_lookup_prob, num_left):
            self.tree.add_chain(*chain, self._num_ids)

    def _forget_unknown_ids(self) -> None:
        if self._session.num_shared_ids < self._num_ids:
            self._num_ids = self._session.num_shared_ids
            self.tree.forget_ids(self._num_ids)

    def _look_for_a_dead_end(self) -> None:
        """Where all that was guessed to follow the text is unknown to the target, the cloud must write."""
        guesses = self.tree.root.guesses
        if guesses is not None and not guesses.token_ids and not self.way.has_credit:
            self.give_up()

    def _worth_reading(self, count: int) -> list[Node]:
        return self.tree.best_to_read(count, self.way.least_prob, self._session.sampling.max_tokens)

    def _block(self) -> tuple[list[Node], int | None]:
        """A chain of the length that is asked for, and where it starts: None at the end of the text, else behind those
        in flight."""
        length = min(self.way.block_length, self._session.max_block_length)
        nodes = self.tree.unoffered(0.0, length)
        if not nodes or (len(nodes) < length and self._coming(1)):
            return [], None
        start = nodes[0].position
        return nodes, None if start == self._session.cloud_length else start

    def _is_worth_waiting(self) -> bool:
        """Whether one more draft step gains more tokens than its time is worth: the marginal value theorem."""
        coming = self._coming(self.way.width)
        return bool(coming) and sum(map(self.tree.prob, coming)) > self._planner.tokens_in_step(len(coming))

    def _coming(self, count: int) -> Sequence[Node]:
        """What is being read or would be read next."""
        return [node for node in self._reading if self.tree.contains(node)] or self._worth_reading(count)
