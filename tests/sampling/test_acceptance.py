from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skydraft.core import (
    AcceptanceRule,
    Draft,
    Exact,
    LatticeDistribution,
    MinProb,
    Rank,
    Rejection,
    SamplingParams,
    TreeShape,
)
from skydraft.errors import EngineError, RemoteProtocolError
from skydraft.sampling.acceptance import Judgement, judge
from skydraft.sampling.choice import target_choices
from tests.sampling.helpers import ContextModel, ToArray, softmax

VOCAB_SIZE = 6
CONTEXT = (3, 4)
GREEDY = SamplingParams(max_tokens=100)


def own_text(model: ContextModel, params: SamplingParams, context: Sequence[int], length: int) -> list[int]:
    """What the target alone writes after the context, up to `length` tokens or the end of the text."""
    text = list(context)
    while len(text) < len(context) + length and not params.is_end(text):
        text += target_choices(model.logits(text)[None, :], params, [len(text)])
    return text[len(context) :]


def written(draft: Draft, judgement: Judgement) -> list[int]:
    own = [] if judgement.token_id is None else [judgement.token_id]
    return [draft.token_ids[node] for node in judgement.path] + own


@st.composite
def trees(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids and parents of a tree whose siblings differ."""
    num_nodes = draw(st.integers(0, 12))
    parents = [draw(st.integers(0, node)) for node in range(num_nodes)]
    token_ids = [draw(st.integers(0, VOCAB_SIZE - 1)) for _ in range(num_nodes)]
    taken: set[tuple[int, int]] = set()
    for node, parent in enumerate(parents):
        while (parent, token_ids[node]) in taken and parent < node:
            parent += 1
        parents[node] = parent
        if (parent, token_ids[node]) in taken:
            return tuple(token_ids[:node]), tuple(parents[:node])
        taken.add((parent, token_ids[node]))
    return tuple(token_ids), tuple(parents)


some_params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.5, 1.5]),
    top_k=st.sampled_from([0, 3]),
    top_p=st.sampled_from([1.0, 0.8]),
    seed=st.integers(0, 2**64 - 1),
    max_tokens=st.integers(3, 10),
    end_ids=st.sampled_from([(), (0,), (1, 2)]),
)


@settings(max_examples=100)
@given(tree=trees(), params=some_params, salt=st.integers(0, 50))
def test_exact_writes_the_targets_own_text_for_any_tree(
    tree: tuple[tuple[int, ...], tuple[int, ...]], params: SamplingParams, salt: int
) -> None:
    token_ids, parents = tree
    model = ContextModel(VOCAB_SIZE, salt)
    judgement = judge(
        draft := Draft(2, token_ids, TreeShape(parents)), model.rows(CONTEXT, token_ids, parents), params, Exact()
    )
    text = written(draft, judgement)
    assert text == own_text(model, params, CONTEXT, len(text))
    assert text or params.is_end(CONTEXT)
    assert judgement.token_id is not None or params.is_end([*CONTEXT, *text])


@settings(max_examples=40)
@given(data=st.data(), params=some_params, salt=st.integers(0, 50))
def test_rounds_of_any_drafts_write_the_targets_own_text(
    data: st.DataObject, params: SamplingParams, salt: int
) -> None:
    """Drafts that follow the target for a while, so that several tokens hold."""
    model = ContextModel(VOCAB_SIZE, salt)
    text: list[int] = []
    while not params.is_end(text):
        guess = own_text(model, params, text, data.draw(st.integers(0, 4)))
        guess += data.draw(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=2))
        rows = model.rows(text, guess, range(len(guess)))
        text += written(draft := Draft.chain(len(text), tuple(guess)), judge(draft, rows, params, Exact()))
    assert text == own_text(model, params, [], params.max_tokens)


def test_judgements_are_the_same_in_numpy_and_torch(to_array: ToArray) -> None:
    model = ContextModel(VOCAB_SIZE, 3)
    params = SamplingParams(temperature=0.9, seed=4)
    text = own_text(model, params, [], 3)
    distribution = LatticeDistribution((0, 1, 2, 3, 4, 5), (10, 10, 10, 10, 10, 14))
    rows = model.rows([], text, range(3))
    draft = Draft.chain(0, tuple(text), distributions=(distribution,) * 3)
    for rule in (Exact(), Rank(2), MinProb(0.2), Rejection()):
        assert judge(draft, to_array(rows), params, rule) == judge(draft, rows, params, rule)
    assert judge(draft, to_array(rows), params, Exact()).path == (0, 1, 2)


LOGITS = np.log(np.array([0.05, 0.4, 0.1, 0.25, 0.2]))  # ranks: 1, 3, 4, 2, 0
ROWS = np.tile(LOGITS, (9, 1))


@pytest.mark.parametrize(
    ("rule", "num_held"),
    [(Rank(1), 0), (Rank(2), 0), (Rank(3), 2), (Rank(4), 3), (MinProb(0.3), 0), (MinProb(0.15), 2)],
)
def test_rank_and_prob_hold_a_chain_up_to_the_first_token_that_fails(rule: AcceptanceRule, num_held: int) -> None:
    draft = Draft.chain(0, (4, 3, 2, 0))
    judgement = judge(draft, ROWS[:5], GREEDY, rule)
    assert judgement == Judgement(tuple(range(num_held)), 1)


@pytest.mark.parametrize("rule", [Rank(5), MinProb(0.01)])
def test_rank_and_prob_emit_no_bonus_token(rule: AcceptanceRule) -> None:
    assert judge(Draft.chain(0, (4, 3, 2)), ROWS[:4], GREEDY, rule) == Judgement((0, 1, 2), None)
    assert judge(Draft.chain(0, ()), ROWS[:1], GREEDY, rule) == Judgement((), None)


@pytest.mark.parametrize(("max_rank", "holds"), [(1, False), (2, True), (3, True)])
def test_tied_tokens_share_the_best_rank_of_them(max_rank: int, holds: bool) -> None:
    logits = np.tile([3.0, 2.0, 2.0, 2.0, 1.0], (2, 1))
    for token_id in (1, 2, 3):
        judgement = judge(Draft.chain(0, (token_id,)), logits, GREEDY, Rank(max_rank))
        assert bool(judgement.path) is holds


def test_rank_and_prob_judge_before_temperature_and_cuts() -> None:
    params = SamplingParams(temperature=0.01, top_k=1, seed=1)
    assert judge(Draft.chain(0, (0,)), ROWS[:2], params, Rank(5)).path == (0,)
    assert judge(Draft.chain(0, (4,)), ROWS[:2], params, MinProb(0.2 - 1e-12)).path == (0,)
    assert judge(Draft.chain(0, (4,)), ROWS[:2], params, MinProb(0.2 + 1e-12)).path == ()


@pytest.mark.parametrize(("rule", "path"), [(Rank(3), (1, 2)), (Rank(5), (0, 3)), (MinProb(0.2 - 1e-12), (1, 2))])
def test_rank_and_prob_take_the_first_child_of_a_tree_that_holds(rule: AcceptanceRule, path: tuple[int, ...]) -> None:
    draft = Draft(0, (0, 4, 1, 0, 3), TreeShape((0, 0, 2, 1, 2)))
    judgement = judge(draft, ROWS[:6], GREEDY, rule)
    assert judgement == Judgement(path, None)


def test_the_correction_of_rank_and_prob_is_the_targets_choice() -> None:
    for seed in range(30):
        params = SamplingParams(temperature=1.5, seed=seed)
        judgement = judge(Draft.chain(4, (1, 0)), ROWS[:3], params, Rank(1))
        assert judgement == Judgement((0,), target_choices(ROWS[1:2], params, [5])[0])


def rejection_draft(token_ids: Sequence[int], num_forced: int = 0, start: int = 0) -> Draft:
    """Each token drawn from a certainty: it holds with the target's probability of it."""
    distributions = tuple(LatticeDistribution((token_id,), (64,)) for token_id in token_ids[num_forced:])
    return Draft.chain(start, tuple(token_ids), num_forced=num_forced, distributions=distributions)


RULES: list[AcceptanceRule] = [Exact(), Rank(1), MinProb(0.3), Rejection()]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_forced_tokens_hold_and_judging_goes_on_after_them(rule: AcceptanceRule) -> None:
    assert judge(rejection_draft([0, 0, 1, 0], 2), ROWS[:5], GREEDY, rule) == Judgement((0, 1, 2), 1)
    bonus = None if isinstance(rule, Rank | MinProb) else 1
    assert judge(rejection_draft([0, 0], 2), ROWS[:3], GREEDY, rule) == Judgement((0, 1), bonus)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("num_forced", [0, 1, 2, 3])
def test_nothing_follows_an_end_token(rule: AcceptanceRule, num_forced: int) -> None:
    params = SamplingParams(max_tokens=100, end_ids=(1,))
    draft = rejection_draft([1, 1, 1], num_forced)
    assert judge(draft, ROWS[:4], params, rule) == Judgement((0,), None)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("num_forced", [0, 1, 2, 3])
@pytest.mark.parametrize(("max_tokens", "path"), [(12, (0, 1)), (11, (0,)), (10, ()), (4, ())])
def test_the_text_stops_at_its_largest_length(
    rule: AcceptanceRule, num_forced: int, max_tokens: int, path: tuple[int, ...]
) -> None:
    params = SamplingParams(max_tokens=max_tokens)
    draft = rejection_draft([1, 1, 1], num_forced, start=10)
    assert judge(draft, ROWS[:4], params, rule) == Judgement(path, None)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_last_token_of_the_largest_length_may_be_a_correction(rule: AcceptanceRule) -> None:
    params = SamplingParams(max_tokens=12)
    assert judge(rejection_draft([1, 0, 1], start=10), ROWS[:4], params, rule) == Judgement((0,), 1)


def test_a_correction_may_end_the_text() -> None:
    params = SamplingParams(max_tokens=100, end_ids=(1,))
    assert judge(Draft.chain(0, (0,)), ROWS[:2], params, Exact()) == Judgement((), 1)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rows_that_no_walk_can_reach_are_not_looked_at(rule: AcceptanceRule) -> None:
    params = SamplingParams(max_tokens=100, end_ids=(1,))
    rows = np.full((5, 5), np.nan)
    rows[1] = LOGITS
    assert judge(rejection_draft([0, 1, 3, 3], 1), rows, params, rule) == Judgement((0, 1), None)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rule", [*RULES, Rank(100)], ids=str)
def test_logits_of_nan_hold_nothing_and_are_an_error(rule: AcceptanceRule, temperature: float) -> None:
    params = SamplingParams(temperature=temperature)
    with pytest.raises(EngineError, match="not a finite number"):
        judge(rejection_draft([1]), np.full((2, 5), np.nan), params, rule)


def test_a_probability_is_that_of_the_plain_softmax() -> None:
    row = np.random.default_rng(5).standard_normal(50).astype(np.float32)
    probs = softmax(row.astype(np.float64))
    for token_id in range(50):
        rule = MinProb(float(probs[token_id]) * (1 - 1e-9))
        assert judge(Draft.chain(0, (token_id,)), np.stack([row, row]), GREEDY, rule).path == (0,)


@pytest.mark.parametrize("shape", [(3, 5), (5, 5), (4,), (1, 4, 5)])
def test_rows_that_do_not_fit_the_draft_are_the_callers_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \[4, vocab_size\]"):
        judge(Draft.chain(0, (1, 2, 3)), np.zeros(shape), GREEDY, Exact())


@pytest.mark.parametrize("token_id", [5, -1])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_token_outside_the_vocabulary_is_the_peers_error(token_id: int, rule: AcceptanceRule) -> None:
    with pytest.raises(RemoteProtocolError, match=f"token {token_id} of the draft is not in the vocabulary, 0 to 4"):
        judge(rejection_draft([0, token_id]), ROWS[:3], GREEDY, rule)


@settings(max_examples=100)
@given(
    token_ids=st.lists(st.integers(-1, 6), max_size=4),
    parents=st.none() | st.lists(st.integers(-1, 5), max_size=4),
    num_forced=st.integers(-1, 5),
    start=st.integers(-1, 3),
    rule=st.sampled_from([Exact(), Rank(2), MinProb(0.2), Rejection(top_k=2, lattice=4)]),
    distributions=st.none()
    | st.lists(
        st.builds(
            LatticeDistribution,
            st.lists(st.integers(-1, 6), max_size=3).map(tuple),
            st.lists(st.integers(-1, 4), max_size=3).map(tuple),
        ),
        max_size=4,
    ).map(tuple),
)
def test_no_sound_draft_of_a_peer_ends_in_another_error(
    token_ids: list[int],
    parents: list[int] | None,
    num_forced: int,
    start: int,
    rule: AcceptanceRule,
    distributions: tuple[LatticeDistribution, ...] | None,
) -> None:
    shape = TreeShape.chain(len(token_ids)) if parents is None else TreeShape(tuple(parents))
    draft = Draft(start, tuple(token_ids), shape, num_forced, distributions)
    try:
        draft.check()
    except ValueError:
        return
    try:
        judgement = judge(draft, ROWS[: len(token_ids) + 1], SamplingParams(temperature=1.0), rule)
    except RemoteProtocolError:
        return
    assert len(judgement.path) >= num_forced
