"""The invariant: in exact mode the text is the cloud's own, whatever the device guesses and whatever the link does."""

from __future__ import annotations

from random import Random
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skydraft.config import CloudSettings
from skydraft.core import AcceptanceRule, Exact, Origin, Prompt, Rank, SamplingParams, TokenSegment, TreeShape
from skydraft.decoding.cloud_session import CloudSession, SessionTerms
from skydraft.decoding.edge_session import EdgeSession
from skydraft.errors import CloudFault, LocalProtocolError, RemoteProtocolError, VocabularyMismatch
from skydraft.protocol import codec, messages
from skydraft.text.vocabulary import Vocabulary
from tests.effort import effort_of
from tests.linked import LIMITS, PROMPT, Linked, cloud_only, random_tree, table

MODEL = "table:vocab=8,seed=5,order=2,end=7"
SAMPLINGS = [
    SamplingParams(max_tokens=24, end_ids=(7,)),
    SamplingParams(temperature=0.8, seed=1, max_tokens=24),
    SamplingParams(temperature=1.3, top_k=5, top_p=0.9, seed=2**63 + 5, max_tokens=24, end_ids=(7,)),
]


def new_session(sampling: SamplingParams, rule: AcceptanceRule = Exact()) -> EdgeSession:
    return EdgeSession(table(MODEL).vocabulary, PROMPT, sampling, rule)


def offer_something(linked: Linked, rng: Random, truth: list[int]) -> None:
    """A chain or a tree at the end of the text, or beyond it, behind those in flight."""
    session = linked.session
    if session.num_in_flight >= session.limits.max_in_flight:
        return
    start = len(session.token_ids) + rng.choice([0, 0, 1, 4, 7]) if session.num_in_flight else None
    first = len(session.token_ids) if start is None else start
    token_ids, shape = random_tree(rng, truth, first, rng.randint(1, 6))
    session.offer(token_ids, shape, start=start)
    linked.send_due()


@settings(max_examples=150, deadline=None)
@given(rng=st.randoms(use_true_random=False), sampling=st.sampled_from(SAMPLINGS))
def test_text_is_the_clouds_own_whatever_happens(rng: Random, sampling: SamplingParams) -> None:
    truth = cloud_only(table(MODEL), sampling)
    linked = Linked(new_session(sampling), table(MODEL), CloudSettings(max_in_flight=3))
    linked.open()
    for _ in range(400):
        if linked.session.is_complete:
            break
        match rng.choice(["offer", "offer", "up", "up", "think", "think", "down", "down", "credit", "cut", "forget"]):
            case "offer":
                offer_something(linked, rng, truth)
            case "up":
                linked.carry_up()
            case "think":
                linked.think()
            case "down":
                linked.carry_down()
            case "credit" if rng.random() < 0.3:
                linked.session.give_credit(rng.randrange(30))
                linked.send_due()
            case "cut" if rng.random() < 0.1:
                linked.cut()
                linked.open()
            case "forget" if rng.random() < 0.1:
                linked.forget()
                linked.open()
        assert list(linked.session.token_ids) == truth[: len(linked.session.token_ids)]
    linked.session.give_credit(sampling.max_tokens)  # offers with a gap before them would wait for ever
    linked.send_due()
    linked.settle()
    assert list(linked.session.token_ids) == truth


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_credit_alone_writes_the_clouds_text(sampling: SamplingParams) -> None:
    linked = Linked(new_session(sampling), table(MODEL))
    linked.send(linked.session.open())
    linked.session.give_credit(sampling.max_tokens)
    linked.send_due()
    linked.settle()
    assert list(linked.session.token_ids) == cloud_only(table(MODEL), sampling)
    assert {token.origin for token in linked.session.tokens()} == {Origin.CLOUD}


def test_sessions_of_one_connection_do_not_mix() -> None:
    engine = table(MODEL)
    sessions = [
        EdgeSession(engine.vocabulary, PROMPT, SamplingParams(temperature=1.0, seed=seed, max_tokens=20), Exact(), seed)
        for seed in range(4)
    ]
    linked = Linked(sessions[0], engine)
    for session in sessions:
        session.give_credit(20)
        for due in session.to_send():
            linked.send(due)
    while linked.up:
        linked.carry_up()
    while linked.think():
        pass
    for frame in linked.down:
        message = codec.decode_cloud_message(frame, LIMITS)
        assert message.session is not None
        sessions[message.session].receive(message)
    for session in sessions:
        assert list(session.token_ids) == cloud_only(table(MODEL), session.sampling)


def test_origins_say_who_decided() -> None:
    sampling = SamplingParams(max_tokens=24)
    truth = cloud_only(table(MODEL), sampling)
    linked = Linked(new_session(sampling), table(MODEL))
    linked.open()
    wrong = (truth[2] + 1) % 8
    linked.session.offer([truth[0], truth[1], wrong])
    linked.send_due()
    linked.settle()
    linked.session.offer([truth[3], truth[4]])
    linked.send_due()
    linked.settle()
    assert [token.origin.value for token in linked.session.tokens()] == [
        "accepted", "accepted", "corrected", "accepted", "accepted", "cloud",
    ]  # fmt: skip
    assert linked.session.num_rounds == 2


def test_guesses_that_a_slot_has_no_room_for_are_not_judged() -> None:
    sampling = SamplingParams(max_tokens=24)
    truth = cloud_only(table(MODEL), sampling)
    linked = Linked(new_session(sampling), table(MODEL, max_length=3 + 5))
    linked.open()
    wrong = [token_id for token_id in range(8) if token_id != truth[0]]
    linked.session.offer([truth[0], *wrong, *truth[1:3]], TreeShape((0, *[0] * 7, 1, 9)))
    linked.send_due()
    linked.settle()  # of 10 nodes the slot has room for the first 5
    assert list(linked.session.token_ids) == truth[:2]
    linked.session.offer(truth[2:8])
    linked.send_due()
    linked.settle()
    assert list(linked.session.token_ids) == truth[:5]
    assert linked.session.is_complete
    assert linked.session.is_cut_short
    assert [token.origin.value for token in linked.session.tokens()] == ["accepted", "cloud", *["accepted"] * 3]


def test_a_count_that_no_text_needs_is_refused_before_it_is_unpacked() -> None:
    session = Linked(new_session(SamplingParams(max_tokens=24)), table(MODEL))
    session.open()
    cloud = CloudSession(
        SessionTerms(PROMPT, SamplingParams(max_tokens=24), Exact(), 8, 8), messages.Limits(4096, 64, 8)
    )
    many = bytes(2**20)

    def refuse() -> None:
        with pytest.raises(RemoteProtocolError, match="an offer reaches to position 1048576"):
            cloud.receive(messages.Offer(0, many, num_forced=2**20))
        with pytest.raises(RemoteProtocolError, match="the cloud wrote to position 1048576, beyond the end"):
            session.session.receive(messages.Tokens(0, many))

    effort = effort_of(refuse)
    assert effort.num_steps < 100_000
    assert effort.peak_bytes < 100_000  # unpacked they take 8 million, and as many steps


class MergingRank(Rank, frozen=True):
    merges_offers: ClassVar[bool] = True


def test_offers_that_are_merged_are_judged_by_their_rule_and_not_by_choices_unless_these_decide() -> None:
    for rule, is_decided in [(MergingRank(), False), (Exact(), True)]:
        cloud = CloudSession(
            SessionTerms(PROMPT, SamplingParams(max_tokens=24), rule, 8, 8), messages.Limits(4096, 64, 8)
        )
        cloud.prefilled(np.zeros(8, np.float32))
        for token_id in (1, 2):
            cloud.receive(messages.Offer(0, bytes([token_id])))
        step = cloud.next_step()
        assert step is not None
        assert step.num_offers == 2
        assert (cloud.prepare(step, np.zeros((2, 8), np.float32)).request is not None) == is_decided


def test_a_lost_verdict_keeps_its_origins() -> None:
    sampling = SamplingParams(max_tokens=24)
    truth = cloud_only(table(MODEL), sampling)
    linked = Linked(new_session(sampling), table(MODEL))
    linked.open()
    linked.session.offer([truth[0], truth[1], (truth[2] + 1) % 8])
    linked.send_due()
    linked.carry_up()
    linked.think()
    linked.cut()
    linked.open()
    assert [token.origin.value for token in linked.session.tokens()] == ["accepted", "accepted", "corrected"]


def test_what_the_device_commits_travels_as_forced_tokens() -> None:
    linked = Linked(new_session(SamplingParams(max_tokens=24), Rank(2)), table(MODEL))
    linked.open()
    linked.session.commit([1, 6, 0, 5])
    linked.session.offer([2])
    (message,) = linked.session.to_send()
    linked.send(message)
    linked.settle()
    assert isinstance(message, messages.Offer)
    assert message.num_forced == 4
    assert list(linked.session.token_ids[:4]) == [1, 6, 0, 5]
    assert linked.session.cloud_length == len(linked.session.token_ids) == 5


def test_a_cloud_that_forgot_is_told_everything_again() -> None:
    sampling = SamplingParams(temperature=0.8, seed=9, max_tokens=24)
    linked = Linked(new_session(sampling), table(MODEL))
    linked.open()
    for _ in range(3):
        linked.session.offer([0, 1])
        linked.send_due()
        linked.settle()
    held = list(linked.session.token_ids)
    linked.forget()
    linked.open()
    assert linked.session.cloud_length == 0
    linked.session.offer([0, 1])
    linked.send_due()
    linked.settle()
    assert list(linked.session.token_ids[: len(held)]) == held
    linked.session.give_credit(24)
    linked.send_due()
    linked.settle()
    assert list(linked.session.token_ids) == cloud_only(table(MODEL), sampling)


def test_the_same_offer_twice_is_harmless() -> None:
    sampling = SamplingParams(max_tokens=24)
    linked = Linked(new_session(sampling), table(MODEL))
    linked.open()
    linked.session.offer([1, 2, 3])
    (message,) = linked.session.to_send()
    linked.send(message)
    linked.send(message)
    linked.settle()
    assert list(linked.session.token_ids) == cloud_only(table(MODEL), sampling)[: linked.session.cloud_length]
    assert linked.session.num_rounds == 1


def test_what_is_due_is_listed_once_in_order_and_again_after_a_loss() -> None:
    session = new_session(SamplingParams(max_tokens=20))
    linked = Linked(session, table(MODEL))

    def due() -> list[str]:
        listed = session.to_send()
        for message in listed:
            linked.send(message)
        return [type(message).__name__ for message in listed]

    session.commit([1, 2])
    session.give_credit(5)
    assert due() == ["Open", "Offer", "Generate"]  # the offer is of forced tokens: they go before credit
    assert due() == []
    linked.settle()
    assert due() == []
    linked.cut()
    assert due() == ["Open"]  # the session may be gone, so nothing follows before the answer
    linked.settle()
    assert due() == ["Generate"]
    linked.forget()
    assert due() == ["Open"]
    linked.settle()
    assert due() == ["Open", "Offer", "Generate"]
    session.give_credit(0)
    assert due() == ["Generate"]  # credit is taken back


def test_another_vocabulary_is_refused_by_the_cloud() -> None:
    other = Vocabulary("other", tuple("abcdefg"), 7)
    linked = Linked(EdgeSession(other, PROMPT, SamplingParams(), Exact()), table(MODEL))
    linked.send(linked.session.open())
    with pytest.raises(CloudFault, match="the draft model and the target model table.* do not share a vocabulary"):
        linked.settle()


def test_a_larger_vocabulary_is_checked_by_the_device() -> None:
    engine = table(MODEL)
    larger = Vocabulary("larger", tuple("abcdefghijk"), 11)
    linked = Linked(EdgeSession(larger, PROMPT, SamplingParams(), Exact()), engine)
    linked.send(linked.session.open())
    with pytest.raises(VocabularyMismatch, match="larger"):
        linked.settle()


def test_ids_beyond_the_smaller_vocabulary_are_never_chosen() -> None:
    engine = table(MODEL)
    smaller = Vocabulary("smaller", engine.vocabulary.tokens[:3], 3)
    prompt = Prompt((TokenSegment((1, 2)),))
    session = EdgeSession(smaller, prompt, SamplingParams(temperature=5.0, max_tokens=40), Exact())
    linked = Linked(session, engine)
    linked.send(session.open())
    session.give_credit(40)
    linked.send_due()
    linked.settle()
    assert set(session.token_ids) <= {0, 1, 2}
    assert len(session.token_ids) == 40


def test_an_offer_before_opening_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="open it first"):
        new_session(SamplingParams()).offer([1])


def test_more_offers_than_the_cloud_takes_are_our_own_mistake() -> None:
    linked = Linked(new_session(SamplingParams()), table(MODEL), CloudSettings(max_in_flight=1))
    linked.open()
    linked.session.offer([1])
    with pytest.raises(LocalProtocolError, match="1 offers are in flight and the cloud takes 1"):
        linked.session.offer([2], start=2)


@pytest.mark.parametrize(
    "message",
    [
        messages.Verdict(3, 1),
        messages.Verdict(1, None, node=7),
        messages.Verdict(0),
        messages.Tokens(5, b"\x01"),
        messages.Opened(
            messages.PROTOCOL_VERSION, 0, b"k", 0, b"12345678", messages.VocabularyMark(8, b""), messages.LEAST_LIMITS
        ),
    ],
)
def test_answers_to_nothing_are_the_clouds_mistake(message: messages.CloudMessage) -> None:
    linked = Linked(new_session(SamplingParams()), table(MODEL))
    linked.open()
    with pytest.raises(RemoteProtocolError):
        linked.session.receive(message)


def test_a_verdict_beyond_the_offer_is_the_clouds_mistake() -> None:
    linked = Linked(new_session(SamplingParams()), table(MODEL))
    linked.open()
    linked.session.offer([1, 2])
    with pytest.raises(RemoteProtocolError, match="does not fit an offer of 2 tokens"):
        linked.session.receive(messages.Verdict(5, 3))


def test_what_the_device_committed_goes_before_the_first_token_on_credit() -> None:
    session = new_session(SamplingParams(max_tokens=20))
    linked = Linked(session, table(MODEL))
    other = (cloud_only(table(MODEL), session.sampling)[0] + 1) % 8
    session.commit([other, 1, 2])
    linked.open()
    session.offer(())
    linked.send_due()
    session.give_credit(20)
    linked.send_due()
    linked.settle()
    assert session.is_complete
    assert list(session.token_ids[:3]) == [other, 1, 2]


def test_a_verdict_that_adds_nothing_is_the_clouds_mistake() -> None:
    session = new_session(SamplingParams(max_tokens=20))
    linked = Linked(session, table(MODEL))
    linked.open()
    session.offer([1, 2])
    with pytest.raises(RemoteProtocolError, match="adds nothing"):
        session.receive(messages.Verdict(0))


def test_a_tree_behind_a_long_text_that_the_device_committed_is_numbered_alike_on_both_sides() -> None:
    session = new_session(SamplingParams(max_tokens=60))
    linked = Linked(session, table(MODEL))
    session.commit([1, 2, 3, 4] * 10)
    linked.open()
    session.offer(range(6), TreeShape((0,) * 6))
    linked.send_due()
    linked.settle()
    assert session.cloud_length == 42
    assert [token.origin for token in session.tokens(40)] == [Origin.ACCEPTED, Origin.CLOUD]
