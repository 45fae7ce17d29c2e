"""What a session says of its text: the cloud's own where that is promised, else how many choices were near a tie."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from msgspec.structs import replace

from skydraft.core import AcceptanceRule, Exact, Rank, SamplingParams
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.base import Extension, RowPromise
from skydraft.engines.emulated.table import TableEngine
from skydraft.errors import NoPromise
from skydraft.sampling.near_ties import near_ties
from tests.linked import PROMPT, Linked, cloud_only, random_tree, table

MODEL = "table:vocab=8,seed=5,order=2"
GAP = 0.4
GREEDY = SamplingParams(max_tokens=40)
SAMPLED = SamplingParams(max_tokens=40, temperature=0.8, seed=3, top_k=6)


def engine(is_invariant: bool, gap_change: float | None = GAP) -> TableEngine:
    model = table(MODEL)
    model.row_promise = RowPromise(is_invariant, "a test says so", gap_change)
    return model


def linked_to(model: TableEngine, sampling: SamplingParams = GREEDY, rule: AcceptanceRule = Exact()) -> Linked:
    return Linked(EdgeSession(model.vocabulary, PROMPT, sampling, rule), model)


def write(linked: Linked, truth: Sequence[int], cuts: Sequence[int] = ()) -> None:
    """The whole text, by trees and by credit; at these rounds the connection is lost, once with the verdict."""
    rng, session, number = Random(1), linked.session, 0
    linked.open()
    while not session.is_complete:
        number += 1
        start = len(session.token_ids)
        if number % 4:
            session.offer(*random_tree(rng, truth, start, min(5, session.max_block_length)))
        else:
            session.give_credit(start + 2)
        linked.send_due()
        if number in cuts:
            while linked.up:
                linked.carry_up()
            linked.think()
            linked.cut()
            linked.open()
        linked.settle()


def num_near(sampling: SamplingParams, truth: list[int]) -> int:
    """Counted by one reading of the whole text."""
    model = table(MODEL)
    slot, logits = model.open(PROMPT)
    (rows,) = model.extend([Extension.chain(slot, truth[:-1])])
    return len(near_ties(np.concatenate([logits[None], rows]), sampling, range(len(truth)), truth, GAP))


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
@pytest.mark.parametrize("cuts", [(), (2, 3, 5)])
def test_near_ties_are_those_of_the_text_however_it_was_judged_and_whatever_was_lost(
    sampling: SamplingParams, cuts: Sequence[int]
) -> None:
    truth = cloud_only(table(MODEL), sampling)
    linked = linked_to(engine(is_invariant=False), sampling)
    write(linked, truth, cuts)
    assert list(linked.session.token_ids) == truth
    assert 0 < num_near(sampling, truth) < len(truth)
    assert linked.session.num_near_ties == num_near(sampling, truth)
    assert not linked.session.is_cloud_text


def test_an_invariant_cloud_promises_its_text_and_counts_nothing() -> None:
    linked = linked_to(engine(is_invariant=True))
    write(linked, cloud_only(table(MODEL), GREEDY))
    assert linked.session.is_cloud_text
    assert linked.session.num_near_ties == 0


def test_what_was_not_measured_cannot_be_counted() -> None:
    linked = linked_to(engine(is_invariant=False, gap_change=None))
    write(linked, cloud_only(table(MODEL), GREEDY))
    assert linked.session.num_near_ties is None
    assert not linked.session.is_cloud_text


def test_a_text_that_the_cloud_wrote_alone_is_its_own_however_it_rounds() -> None:
    linked = linked_to(engine(is_invariant=False))
    linked.open()
    linked.session.give_credit(40)
    linked.send_due()
    linked.settle()
    assert linked.session.is_complete
    assert linked.session.is_cloud_text
    assert linked.session.num_near_ties == num_near(GREEDY, list(linked.session.token_ids))


def test_a_token_that_the_device_committed_is_not_the_clouds() -> None:
    linked = linked_to(engine(is_invariant=True))
    linked.open()
    linked.session.commit([1])
    assert not linked.session.is_cloud_text


def test_a_rule_that_is_lenient_promises_nothing() -> None:
    linked = linked_to(engine(is_invariant=True), replace(GREEDY, max_tokens=1), Rank(8))
    linked.open()
    linked.session.offer((3,))
    linked.send_due()
    linked.settle()
    assert linked.session.is_complete
    assert not linked.session.is_cloud_text
    assert linked.session.num_near_ties is None


def test_one_cloud_without_a_promise_is_enough_to_have_none() -> None:
    truth = cloud_only(table(MODEL), GREEDY)
    first, second = linked_to(engine(is_invariant=True)), engine(is_invariant=False)
    first.open()
    first.session.offer(truth[:3])
    first.send_due()
    first.settle()
    first.session.disconnect()
    other = Linked(first.session, second)
    write(other, truth)
    assert list(other.session.token_ids) == truth
    assert not other.session.is_cloud_text


@pytest.mark.parametrize(("gap_change", "words"), [(0.125, "by up to 0.12"), (None, "this was not measured")])
def test_a_strict_device_refuses_a_cloud_without_a_promise_in_a_sentence(gap_change: float | None, words: str) -> None:
    model = engine(is_invariant=False, gap_change=gap_change)
    linked = Linked(EdgeSession(model.vocabulary, PROMPT, GREEDY, Exact(), is_strict=True), model)
    with pytest.raises(NoPromise, match=rf"cannot promise its own text.*{words}.*leave --strict out"):
        linked.open()


def test_a_strict_device_takes_a_cloud_with_a_promise() -> None:
    model = engine(is_invariant=True)
    linked = Linked(EdgeSession(model.vocabulary, PROMPT, GREEDY, Exact(), is_strict=True), model)
    write(linked, cloud_only(table(MODEL), GREEDY))
    assert linked.session.is_cloud_text


def test_a_change_that_is_too_large_to_say_is_said_as_the_largest() -> None:
    linked = linked_to(engine(is_invariant=False, gap_change=1e30))
    linked.open()
    linked.session.give_credit(5)
    linked.send_due()
    linked.settle()
    assert linked.session.num_near_ties == 5
