"""Drafting in every way, linked in memory to a real cloud half: the text is the cloud's own, whatever happens when."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skydraft.config import CloudSettings
from skydraft.core import Draft, Exact, Objective, SamplingParams
from skydraft.decoding.drafting import Drafting
from skydraft.decoding.edge_session import EdgeSession, Phase
from skydraft.decoding.lookup import Lookup, LookupSources
from skydraft.edge.drafter import LoneDrafter
from skydraft.edge.tree_reader import DraftStep
from skydraft.engines.emulated.words import WordTokenizer
from skydraft.policies.confidence import Confidence
from skydraft.policies.habits import Habits
from skydraft.policies.match_confidence import MatchConfidence
from skydraft.policies.planner import Planner
from skydraft.policies.way import CLOUD, FREE, TREE, Way, chain
from skydraft.protocol import codec, messages, offers
from skydraft.text.token_reader import TokenReader
from tests.linked import PROMPT, Linked, cloud_only, table

TARGET = "table:vocab=8,seed=5,order=2"
LARGER = "table:vocab=12,seed=9"  # it knows tokens that the target lacks
DRAFTS = [TARGET, "table:vocab=8,seed=5,order=2,noise=1", "table:vocab=8,seed=99", LARGER]
WAYS = [FREE, TREE, CLOUD, chain(1), chain(5), chain(3, max_in_flight=4, is_eager=True), chain(4, is_eager=True)]


class Bench:
    """A device, a cloud and a link in one thread; each moves when it is told to."""

    def __init__(
        self,
        draft: str,
        way: Way | None,
        sampling: SamplingParams,
        cloud: CloudSettings | None = None,
        target: str = TARGET,
        lookup: Lookup | None = None,
    ) -> None:
        self.session = EdgeSession(table(draft).vocabulary, PROMPT, sampling, Exact())
        self.link = Linked(self.session, table(target), cloud or CloudSettings())
        reader = TokenReader(WordTokenizer(table(draft).vocabulary))
        self.drafter = LoneDrafter(table(draft), sampling, Exact(), reader.matcher(sampling))
        self.drafter.open(PROMPT)
        self.drafter.follow(())
        self.planner = Planner(fixed=way, has_draft=way is not None)
        self.drafting = Drafting(self.session, self.planner, now_s=0.0, lookup=lookup)
        self.now_s = 0.0
        self.step: DraftStep | None = None
        self.num_offers = self.length = self.num_positions = 0

    def connect(self) -> None:
        if self.session.phase is Phase.APART:
            self.link.send(self.session.open())
        if self.session.can_follow and self.session.phase is not Phase.APART and self.drafting.way.has_credit:
            self.session.give_credit(self.session.sampling.max_tokens)
            self.link.send_due()

    def think(self) -> None:
        """The device begins a draft step, or ends the one under way; and sends what is to be sent."""
        if self.step is not None:
            guesses = self.drafter.guess(self.step, self.drafting.way.num_guesses, self.session.num_shared_ids)
            self.drafting.saw_draft_step(self.step.nodes, guesses, len(self.step.token_ids), 0.01)
            self.step = None
        elif nodes := self.drafting.next_step():
            self.step = self.drafter.plan(self.drafting.tree, nodes)
        self.drafting.offer()
        self.num_offers += sum(isinstance(message, messages.Offer) for message in self.send_due())

    def send_due(self) -> list[messages.EdgeMessage]:
        due = self.session.to_send() if self.session.phase is not Phase.APART else []
        for message in due:
            self.link.send(message)
        return due

    def listen(self) -> None:
        self.link.carry_down()
        self.grow()

    def grow(self) -> None:
        self.now_s += 0.05
        session = self.session
        num_new, num_positions = len(session.token_ids) - self.length, session.num_positions - self.num_positions
        if num_new:
            self.planner.saw_answer(self.now_s, num_new, num_positions, session.has_credit)
        self.length, self.num_positions = len(session.token_ids), session.num_positions
        self.drafting.saw_answer()

    def cut(self) -> None:
        self.link.cut()
        self.drafting.saw_loss()


def play(bench: Bench, rng: Random, cut_share: float = 0.0) -> None:
    """Device, link and cloud move in random order until the text is complete."""
    moves = [bench.think, bench.link.carry_up, bench.link.think, bench.listen]
    for _ in range(20_000):
        if bench.session.is_complete:
            return
        bench.connect()
        if rng.random() < cut_share:
            bench.cut()
            continue
        rng.choice(moves)()
        if bench.session.phase is Phase.OPEN and bench.drafting.way.has_credit and rng.random() < 0.1:
            bench.session.give_credit(bench.session.sampling.max_tokens)
            bench.link.send_due()
    raise AssertionError(f"the text stands still at {len(bench.session.token_ids)} tokens")


@settings(max_examples=60, deadline=None)
@given(
    way=st.sampled_from(WAYS),
    draft=st.sampled_from(DRAFTS),
    seed=st.integers(0, 2**32),
    temperature=st.sampled_from([0.0, 0.9]),
    cut_share=st.sampled_from([0.0, 0.0, 0.01]),
    max_in_flight=st.sampled_from([1, 2, 32]),
    max_draft_tokens=st.sampled_from([16, 64]),
)
def test_the_text_is_the_clouds_own_in_every_way_and_order(
    way: Way, draft: str, seed: int, temperature: float, cut_share: float, max_in_flight: int, max_draft_tokens: int
) -> None:
    sampling = SamplingParams(temperature=temperature, seed=seed, max_tokens=30)
    cloud = CloudSettings(max_in_flight=max_in_flight, max_draft_tokens=max_draft_tokens)
    bench = Bench(draft, way, sampling, cloud)
    play(bench, Random(seed), cut_share)
    assert list(bench.session.token_ids) == cloud_only(table(TARGET), sampling)


LOOKED_UP_ALONE = None


@settings(max_examples=60, deadline=None)
@given(
    way=st.sampled_from([LOOKED_UP_ALONE, LOOKED_UP_ALONE, *WAYS]),
    seed=st.integers(0, 2**32),
    temperature=st.sampled_from([0.0, 0.9]),
    cut_share=st.sampled_from([0.0, 0.01]),
    num_right=st.integers(0, 30),
    max_draft_tokens=st.sampled_from([16, 64]),
)
def test_what_is_looked_up_changes_no_text(
    way: Way | None, seed: int, temperature: float, cut_share: float, num_right: int, max_draft_tokens: int
) -> None:
    sampling = SamplingParams(temperature=temperature, seed=seed, max_tokens=30)
    text = cloud_only(table(TARGET), sampling)
    rng = Random(seed)
    expected = [*text[:num_right], *(rng.randrange(12) for _ in range(8)), *text[num_right:]]  # and tokens it lacks
    lookup = Lookup(MatchConfidence(), PROMPT.token_ids, sources=LookupSources(expected))
    bench = Bench(LARGER, way, sampling, CloudSettings(max_draft_tokens=max_draft_tokens), lookup=lookup)
    play(bench, rng, cut_share)
    assert list(bench.session.token_ids) == text


def looked_up(num_right: int, num_tokens: int = 40) -> Bench:
    """A text that a client expects, up to a token; no draft model, and the cloud answers in a few moments."""
    sampling = SamplingParams(temperature=0.9, seed=3, max_tokens=num_tokens)
    text = cloud_only(table(TARGET), sampling)
    sources = LookupSources([*text[:num_right], 0, 0, 0])
    bench = Bench(TARGET, LOOKED_UP_ALONE, sampling, lookup=Lookup(MatchConfidence(), PROMPT.token_ids, (), sources))
    bench.connect()
    while not bench.session.is_complete:
        bench.think()
        bench.link.carry_up()
        bench.link.carry_up()
        bench.link.think()
        while bench.link.down:
            bench.listen()
    assert list(bench.session.token_ids) == text
    return bench


def test_a_text_that_was_expected_takes_a_few_passes() -> None:
    whole, half, none = (looked_up(num_right).length / looked_up(num_right).now_s for num_right in (40, 20, 0))
    assert whole > 4 * none
    assert whole > half > none
    assert looked_up(40).step is None  # no model was asked


def test_nothing_is_looked_up_where_offers_are_chains_of_the_draft_model() -> None:
    sampling = SamplingParams(max_tokens=30)
    lookup = Lookup(MatchConfidence(), PROMPT.token_ids, sources=LookupSources(cloud_only(table(TARGET), sampling)))
    bench = Bench(TARGET, chain(4), sampling, lookup=lookup)
    assert [node.token_id for node in bench.drafting.tree.nodes()] == [None]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_way_may_change_at_any_time(seed: int) -> None:
    rng = Random(seed)
    sampling = SamplingParams(temperature=0.9, seed=seed, max_tokens=30)
    bench = Bench(DRAFTS[1], FREE, sampling)
    think = bench.think

    def change_and_think() -> None:
        if rng.random() < 0.1:
            bench.drafting.way = replace(rng.choice(WAYS), has_credit=True)
        think()

    bench.think = change_and_think  # type: ignore[method-assign]
    play(bench, rng)
    assert list(bench.session.token_ids) == cloud_only(table(TARGET), sampling)


def rounds(way: Way, draft: str = TARGET, max_tokens: int = 24) -> Bench:
    """Play with a cloud that waits until the device has nothing more to do."""
    bench = Bench(draft, way, SamplingParams(max_tokens=max_tokens))
    bench.connect()
    bench.link.settle()
    while not bench.session.is_complete:
        for _ in range(40):
            bench.think()
        bench.link.settle()
        bench.grow()
    return bench


def test_stop_and_wait_offers_chains_of_its_length_and_waits() -> None:
    bench = rounds(chain(5))
    assert bench.session.num_rounds == bench.num_offers == 4  # 5 tokens and a bonus token each
    assert bench.session.num_positions == 24


def test_a_tree_holds_more_tokens_a_round_than_a_chain() -> None:
    tree, line = rounds(replace(TREE, is_patient=False, least_gain=5.0), DRAFTS[1]), rounds(chain(5), DRAFTS[1])
    assert tree.session.num_rounds < line.session.num_rounds


def test_pipelined_offers_hang_from_those_in_flight() -> None:
    bench = Bench(TARGET, chain(3, max_in_flight=4, is_eager=True), SamplingParams(max_tokens=40))
    bench.connect()
    bench.link.settle()
    for _ in range(60):
        bench.think()
    assert bench.session.num_in_flight == 4
    bench.link.settle()
    bench.grow()
    assert len(bench.session.token_ids) >= 12
    assert bench.session.num_rounds > 1


def test_what_is_prepared_leaves_the_moment_the_verdict_arrives() -> None:
    bench = Bench(TARGET, chain(4, is_eager=True), SamplingParams(max_tokens=40))
    bench.connect()
    bench.link.settle()
    for _ in range(60):
        bench.think()
    assert bench.num_offers == 1
    bench.link.settle()
    bench.grow()
    bench.drafting.offer()
    assert bench.session.to_send()


def test_nothing_is_drafted_while_an_answer_is_awaited_unless_the_way_is_eager() -> None:
    bench = Bench(TARGET, chain(4), SamplingParams(max_tokens=40))
    bench.connect()
    bench.link.settle()
    for _ in range(60):
        bench.think()
    assert bench.step is None
    assert bench.drafting.next_step() == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), room=st.integers(1, 32), draft=st.sampled_from(DRAFTS), way=st.sampled_from(WAYS))
def test_a_text_ends_where_the_slot_is_full_and_is_the_clouds_up_to_there(
    seed: int, room: int, draft: str, way: Way
) -> None:
    sampling = SamplingParams(temperature=0.9, seed=seed, max_tokens=20)
    bench = Bench(draft, way, sampling)
    bench.link = Linked(bench.session, table(TARGET, max_length=3 + room))
    play(bench, Random(seed))
    assert list(bench.session.token_ids) == cloud_only(table(TARGET), sampling)[:room]
    assert bench.session.is_cut_short == (room < 20)


def nodes_before_the_first_offer(tokens_per_s: float) -> int:
    bench = Bench(DRAFTS[1], TREE, SamplingParams(max_tokens=40))
    bench.connect()
    bench.link.settle()
    bench.planner.review(8, 8, 8 / tokens_per_s)
    while not bench.num_offers:
        bench.think()
    return bench.drafting.tree.num_offered


def test_the_faster_the_text_grows_the_less_a_patient_offer_waits_for() -> None:
    assert nodes_before_the_first_offer(90.0) < nodes_before_the_first_offer(20.0)


@pytest.mark.parametrize("way", WAYS)
def test_guesses_that_the_target_has_no_ids_for_stop_nothing(way: Way) -> None:
    for seed in range(5):
        sampling = SamplingParams(temperature=0.9, seed=seed, max_tokens=20)
        bench = Bench(LARGER, way, sampling)
        bench.connect()
        for _ in range(20):  # the tree is full of such guesses before the cloud has said which ids it knows
            bench.think()
        play(bench, Random(seed))
        assert list(bench.session.token_ids) == cloud_only(table(TARGET), sampling)


def test_a_chain_is_cut_to_what_the_cloud_takes() -> None:
    sampling = SamplingParams(max_tokens=60)
    bench = Bench(TARGET, chain(32), sampling, CloudSettings(max_draft_tokens=16))
    play(bench, Random(1))
    assert list(bench.session.token_ids) == cloud_only(table(TARGET), sampling)


def test_a_tree_of_improbable_guesses_is_offered_all_the_same() -> None:
    sampling = SamplingParams(max_tokens=20)
    bench = Bench("table:vocab=8,seed=99", TREE, sampling)
    bench.planner.habits.confidence = bench.drafting.tree._confidence = Confidence(
        0.1, 0.95, learning_rate=0.0, memory=10**9
    )
    play(bench, Random(1))
    assert list(bench.session.token_ids) == cloud_only(table(TARGET), sampling)


def test_a_chain_has_its_length_however_improbable_it_is() -> None:
    bench = Bench(TARGET, chain(6), SamplingParams(max_tokens=30))
    bench.drafting.tree._confidence.miss = 0.9
    bench.connect()
    bench.link.settle()
    for _ in range(40):
        bench.think()
    assert bench.drafting.tree.num_offered == 6


def test_speed_and_waste_count_from_where_the_drafting_began() -> None:
    bench = Bench(TARGET, TREE, SamplingParams(max_tokens=40))
    planner = Planner(fixed=TREE)
    planner.saw_answer(9.0, 20, 7, has_credit=False)  # of another mode
    reviews: list[tuple[int, int, float]] = []
    planner.review = lambda *seen: reviews.append(seen) or TREE  # type: ignore[method-assign, func-returns-value]
    Drafting(bench.session, planner, now_s=10.0)
    planner.saw_answer(12.0, 2, 2, has_credit=False)
    assert reviews == [(2, 2, 2.0)]


def test_what_another_cloud_does_not_know_is_not_offered_to_it() -> None:
    bench = Bench(TARGET, FREE, SamplingParams(temperature=0.9, max_tokens=40))
    for _ in range(20):
        bench.think()
    bench.session.num_shared_ids = 4
    bench.drafting.saw_connection()
    assert all((node.token_id or 0) < 4 for node in bench.drafting.tree.nodes())


def offered_under(objective: Objective) -> tuple[list[Draft], list[int]]:
    """What leaves the device for a text of two models that mostly agree, each answer as late as it may be."""
    bench = Bench("table:vocab=8,seed=5,order=2,noise=0.3", FREE, SamplingParams(max_tokens=200))
    bench.planner = Planner(objective, habits=Habits(Confidence(6.0, 0.01, learning_rate=0.0)))
    bench.drafting = Drafting(bench.session, bench.planner, now_s=0.0)
    bench.link.send(bench.session.open())
    bench.link.settle()
    sent: list[Draft] = []
    while not bench.session.is_complete:
        for _ in range(6):
            if nodes := bench.drafting.next_step():
                step = bench.drafter.plan(bench.drafting.tree, nodes)
                guesses = bench.drafter.guess(step, bench.drafting.way.num_guesses, 8)
                bench.drafting.saw_draft_step(nodes, guesses, len(step.token_ids), 0.01)
        bench.drafting.offer()
        bench.session.give_credit(len(bench.session.token_ids) + 1)
        sent += [
            offers.from_wire(message, 8, Exact()) for message in bench.send_due() if isinstance(message, messages.Offer)
        ]
        bench.link.settle()
        bench.grow()
    return sent, list(bench.session.token_ids)


def test_under_privacy_what_leaves_is_less_has_no_alternatives_and_is_nearly_always_the_text() -> None:
    def facts(objective: Objective) -> tuple[int, int, bool]:
        """Bytes of offers, tokens in them that the text did not come by, and whether all of them are chains."""
        sent, text = offered_under(objective)
        num_wrong = sum(
            text[draft.start + depth - 1 : draft.start + depth] != [token_id]
            for draft in sent
            for token_id, depth in zip(draft.token_ids, draft.shape.depths[1:], strict=True)
        )
        num_bytes = sum(len(codec.encode(offers.to_wire(draft, 0, 8, Exact()))) for draft in sent)
        return num_bytes, num_wrong, all(draft.shape.is_chain for draft in sent)

    few_bytes, few_wrong, are_chains = facts(Objective.PRIVACY)
    many_bytes, many_wrong, _ = facts(Objective.LATENCY)
    assert are_chains
    assert 0 < few_bytes < 0.7 * many_bytes
    assert few_wrong < many_wrong / 10
