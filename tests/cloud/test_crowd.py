"""Many devices, few slots, connections that come and go: every text is the cloud's own, and nobody is forgotten."""

from __future__ import annotations

from random import Random

from skydraft.cloud.access.keys import Holder, KeyGrant
from skydraft.cloud.metrics import Metrics
from skydraft.cloud.session_registry import SessionRegistry
from skydraft.config import CloudSettings
from skydraft.core import Exact, Prompt, SamplingParams, TokenSegment
from skydraft.decoding.edge_session import EdgeSession, Phase
from skydraft.engines.base import Engine
from skydraft.protocol import codec, messages
from tests.cloud.running import counted
from tests.linked import cloud_only, random_tree, table

MODEL = "table:vocab=8,seed=5,order=2"
NUM_TOKENS = 30


class Visitor:
    """A device with a text of its own, which drafts, or lets the cloud write.

    truth: what the cloud alone writes.
    asked_at: the pass after which it asked for what it has not got yet.
    """

    def __init__(self, number: int, engine: Engine, rng: Random) -> None:
        prompt = Prompt((TokenSegment(tuple(rng.randrange(8) for _ in range(rng.randint(1, 40)))),))
        sampling = SamplingParams(temperature=1.0, seed=number, max_tokens=NUM_TOKENS)
        self.session = EdgeSession(engine.vocabulary, prompt, sampling, Exact())
        self.truth = cloud_only(engine, sampling, prompt)
        self.connection = number
        self.drafts = bool(number % 2)
        self.has_credit = False
        self.asked_at: int | None = None

    def says(self, rng: Random) -> list[messages.EdgeMessage]:
        """What it sends next."""
        session = self.session
        if session.phase is Phase.APART:
            return [session.open()]
        if session.is_complete or session.phase is not Phase.OPEN or session.num_in_flight or self.has_credit:
            return []
        if self.drafts:
            session.offer(*random_tree(rng, self.truth, len(session.token_ids), rng.randint(1, 6)))
        else:
            self.has_credit = True
            session.give_credit(NUM_TOKENS)
        return session.to_send()


class Crowd:
    """Visitors at one registry, each over connections of its own."""

    def __init__(self, num_visitors: int, num_slots: int, seed: int) -> None:
        self.rng, self.metrics, self.num_passes = Random(seed), Metrics(), 0
        engine = table(MODEL, num_slots)
        self.visitors = [Visitor(number, engine, self.rng) for number in range(num_visitors)]
        settings = CloudSettings(max_positions=48, prefill_tokens=24)
        self.registry = SessionRegistry(engine, settings, self.metrics)
        for visitor in self.visitors:
            self.registry.connect(visitor.connection, self._key(visitor))
        self.longest_wait = 0

    def run(self, cuts: float) -> None:
        """Until all texts are complete. cuts: probability that a visitor loses its connection before a pass."""
        while any(not visitor.session.is_complete for visitor in self.visitors):
            for visitor in self.visitors:
                self._visit(visitor, is_cut=self.rng.random() < cuts)
            self._deliver(self.registry.step())
            self.num_passes += 1
            assert self.num_passes < 5000

    def _visit(self, visitor: Visitor, is_cut: bool) -> None:
        if is_cut and visitor.session.phase is Phase.OPEN:
            self.registry.disconnect(visitor.connection)
            visitor.session.disconnect()
            visitor.connection += len(self.visitors)
            visitor.has_credit, visitor.asked_at = False, None
            self.registry.connect(visitor.connection, self._key(visitor))
        for message in visitor.says(self.rng):
            if visitor.asked_at is None and not isinstance(message, messages.Open):
                visitor.asked_at = self.num_passes
            frame = codec.decode_edge_message(codec.encode(message))
            self._deliver(self.registry.receive(visitor.connection, frame))

    def _deliver(self, replies: list[tuple[int, messages.CloudMessage]]) -> None:
        for connection, message in replies:
            visitor = self.visitors[connection % len(self.visitors)]
            if connection != visitor.connection:
                continue
            grown = visitor.session.receive(message)
            if grown:
                assert list(visitor.session.token_ids) == visitor.truth[: len(visitor.session.token_ids)]
                if visitor.asked_at is not None:
                    self.longest_wait = max(self.longest_wait, self.num_passes - visitor.asked_at)
                visitor.asked_at = self.num_passes if visitor.has_credit else None

    def _key(self, visitor: Visitor) -> Holder:
        return Holder(f"key{self.visitors.index(visitor) % 5}", KeyGrant())


def evictions(crowd: Crowd) -> float:
    return counted(crowd.metrics)["skydraft_evictions_total"]


def test_64_devices_that_come_and_go_share_8_slots() -> None:
    crowd = Crowd(64, 8, seed=1)
    crowd.run(cuts=0.01)
    assert all(list(visitor.session.token_ids) == visitor.truth for visitor in crowd.visitors)
    assert evictions(crowd) > 64
    # Seven others come first for a slot; each may keep it for 64 positions, 48 of all being judged in a pass.
    assert crowd.longest_wait < 200


def test_who_has_a_slot_for_each_is_never_evicted() -> None:
    crowd = Crowd(16, 16, seed=2)
    crowd.run(cuts=0.02)
    assert all(list(visitor.session.token_ids) == visitor.truth for visitor in crowd.visitors)
    assert evictions(crowd) == 0


def test_a_device_that_was_evicted_and_lost_its_connection_goes_on() -> None:
    for seed in range(3):
        crowd = Crowd(5, 1, seed)
        crowd.run(cuts=0.1)
        assert all(list(visitor.session.token_ids) == visitor.truth for visitor in crowd.visitors)
