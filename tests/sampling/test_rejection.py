from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from skydraft.core import Draft, LatticeDistribution, Rejection, SamplingParams, TreeShape
from skydraft.errors import RemoteProtocolError
from skydraft.sampling import rejection
from skydraft.sampling.acceptance import Judgement, judge
from skydraft.sampling.choice import target_choices
from skydraft.sampling.gumbel_max import greedy_choices
from skydraft.sampling.lattice import draw, to_lattice
from skydraft.sampling.noise import Stream, gumbel, uniform
from skydraft.sampling.warp import warp
from tests.sampling.helpers import ContextModel, ToArray, assert_law, softmax

VOCAB_SIZE = 8
RULE = Rejection(top_k=4, lattice=16)
DISJOINT_TARGET = np.array([0.0, 1.0, -1.0, 2.0, -np.inf, -np.inf, -np.inf, -np.inf])
DISJOINT_DRAFT = DISJOINT_TARGET[::-1].copy()

logit_rows = st.lists(st.floats(-6, 6), min_size=VOCAB_SIZE, max_size=VOCAB_SIZE).map(np.array)


def held_share(target_prob: float, draft_prob: float) -> float:
    """The share of all u in (0, 1) that the rule accepts, by bisection of the rule itself."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rejection.accepts(middle, target_prob, draft_prob) else (low, middle)
    return low


def emitted_law(target: np.ndarray, distribution: LatticeDistribution, params: SamplingParams) -> np.ndarray:
    """The exact law of the token at one position: over the drafts, over u, over the residual."""
    token_ids, weights = np.array(distribution.token_ids), np.array(distribution.weights)
    drafted = weights / weights.sum()
    rows = np.tile(target, (len(token_ids), 1))
    held = np.array(list(map(held_share, rejection.target_probs(rows, token_ids, params), drafted)))
    law = np.zeros(VOCAB_SIZE)
    law[token_ids] = drafted * held
    residual = softmax(rejection.log_residual(warp(target, params), distribution))
    law += (drafted * (1 - held)).sum() * residual
    return law


@settings(max_examples=80)
@given(
    target=logit_rows,
    draft=logit_rows,
    top_k=st.integers(1, 9),
    lattice=st.integers(1, 300),
    changes=st.sampled_from([{}, {"top_k": 3}, {"top_p": 0.7}, {"temperature": 0.3}]),
)
def test_the_emitted_law_is_the_targets_for_any_draft_cut_and_lattice(
    target: np.ndarray, draft: np.ndarray, top_k: int, lattice: int, changes: dict[str, float]
) -> None:
    params = replace(SamplingParams(temperature=1.0), **changes)
    distribution = to_lattice(draft, params, Rejection(top_k, lattice).draft_lattice)
    np.testing.assert_allclose(emitted_law(target, distribution, params), softmax(warp(target, params)), atol=1e-12)


def test_the_emitted_law_is_the_targets_where_the_supports_are_disjoint() -> None:
    params = SamplingParams(temperature=1.0)
    distribution = to_lattice(DISJOINT_DRAFT, params, RULE.draft_lattice)
    np.testing.assert_allclose(emitted_law(DISJOINT_TARGET, distribution, params), softmax(DISJOINT_TARGET), atol=1e-12)


def test_a_token_holds_strictly_below_the_ratio() -> None:
    assert rejection.accepts(0.4999, 0.25, 0.5)
    assert not rejection.accepts(0.5, 0.25, 0.5)
    assert not rejection.accepts(1e-10, 0.0, 0.5)


def test_the_residual_is_what_the_draft_leaves_of_the_target(to_array: ToArray) -> None:
    warped = np.log(np.array([0.5, 0.3, 0.2]))
    weights = np.exp(np.asarray(rejection.log_residual(to_array(warped), LatticeDistribution((0, 2), (4, 4)))))
    np.testing.assert_allclose(weights, [0.0, 0.3, 0.0], atol=1e-15)
    weights = np.exp(np.asarray(rejection.log_residual(to_array(warped), LatticeDistribution((1, 2), (6, 2)))))
    np.testing.assert_allclose(weights, [0.5, 0.0, 0.0], atol=1e-15)


def test_a_residual_of_nothing_falls_back_to_the_target() -> None:
    warped = np.log(np.array([0.25, 0.75])) - np.log(0.75)
    leaves_nothing = LatticeDistribution((0, 1), (1, 3))
    residual = rejection.log_residual(warped, leaves_nothing)
    np.testing.assert_allclose(softmax(residual), [0.25, 0.75], atol=1e-12)


def test_the_residual_is_sampled_with_noise_of_its_own_stream(to_array: ToArray) -> None:
    row = np.random.default_rng(8).standard_normal(VOCAB_SIZE)
    distribution = LatticeDistribution((0, 1), (8, 8))
    for seed in range(20):
        params = SamplingParams(temperature=0.9, seed=seed)
        noise = gumbel(seed, 5, np.arange(VOCAB_SIZE), Stream.RESIDUAL)
        expected = int((rejection.log_residual(warp(row, params), distribution) + noise).argmax())
        assert rejection.residual_choice(to_array(row), distribution, params, 5) == expected


def test_acceptance_numbers_belong_to_the_position_and_their_own_stream() -> None:
    expected = [float(uniform(4, position, np.array([0]), Stream.ACCEPT)[0]) for position in (3, 9)]
    assert rejection.acceptance_uniforms(4, [3, 9]) == expected


def simulate(params: SamplingParams, target: ContextModel, draft: ContextModel, rule: Rejection) -> tuple[int, ...]:
    """The first three tokens of a text, drafted in chains of three."""
    text: list[int] = []
    while len(text) < 3:
        ids: list[int] = []
        distributions = []
        for position in range(len(text), len(text) + 3):
            distributions.append(to_lattice(draft.logits([*text, *ids]), params, rule.draft_lattice))
            ids.append(draw(distributions[-1], params.seed, position))
        offer = Draft.chain(len(text), tuple(ids), distributions=tuple(distributions))
        judgement = judge(offer, target.rows(text, ids, range(3)), params, rule)
        assert judgement.token_id is not None
        text += [ids[node] for node in judgement.path] + [judgement.token_id]
    return tuple(text[:3])


@pytest.mark.parametrize("spread", [0.7, 2.0], ids=["near", "far"])
def test_texts_over_many_seeds_have_the_law_of_the_target(spread: float) -> None:
    """The joint law of three tokens of four."""
    target, draft = ContextModel(4, 1, spread), ContextModel(4, 2, spread)
    rule = Rejection(top_k=3, lattice=8)
    counts = np.zeros((4, 4, 4), dtype=int)
    for seed in range(250):
        counts[simulate(SamplingParams(temperature=1.0, seed=seed), target, draft, rule)] += 1
    first = softmax(target.logits([]))
    second = np.stack([softmax(target.logits([i])) for i in range(4)])
    third = np.stack([[softmax(target.logits([i, j])) for j in range(4)] for i in range(4)])
    assert_law(counts.ravel(), (first[:, None, None] * second[:, :, None] * third).ravel())


@pytest.mark.parametrize(
    ("target", "draft"),
    [
        (np.array([1.0, 0, 0, 2, 0, -1, 1, 0]), np.array([0.0, 2, 0, 1, 0, 0, -2, 1])),
        (DISJOINT_TARGET, DISJOINT_DRAFT),
        (np.zeros(8), np.zeros(8)),
    ],
    ids=["overlapping", "disjoint", "equal"],
)
def test_tokens_over_many_positions_have_the_law_of_the_target(target: np.ndarray, draft: np.ndarray) -> None:
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=2**20)
    distribution = to_lattice(draft, params, RULE.draft_lattice)
    counts = np.zeros(VOCAB_SIZE, dtype=int)
    for position in range(500):
        token_id = draw(distribution, params.seed, position)
        offer = Draft.chain(position, (token_id,), distributions=(distribution,))
        judgement = judge(offer, np.stack([target, target]), params, RULE)
        counts[token_id if judgement.path else judgement.token_id] += 1
    assert_law(counts, softmax(target))


def test_a_greedy_target_writes_its_greedy_text_for_any_draft() -> None:
    target = ContextModel(VOCAB_SIZE, 5)
    params = SamplingParams(max_tokens=100)
    best = greedy_choices(target.logits([])[None, :])[0]
    for token_id in range(VOCAB_SIZE):
        support = tuple(sorted({token_id, (token_id + 3) % VOCAB_SIZE}))
        offer = Draft.chain(0, (token_id,), distributions=(LatticeDistribution(support, (9, 7)),))
        judgement = judge(offer, target.rows([], [token_id], [0]), params, RULE)
        bonus = greedy_choices(target.logits([token_id])[None, :])[0]
        assert judgement == (Judgement((0,), bonus) if token_id == best else Judgement((), best))


def test_the_bonus_token_is_the_targets_choice() -> None:
    certain, row = np.array([-np.inf, 0.0, -np.inf, -np.inf]), np.array([0.0, -np.inf, 1.0, 0.5])
    for seed in range(20):
        params = SamplingParams(temperature=1.0, seed=seed)
        offer = Draft.chain(6, (1,), distributions=(LatticeDistribution((1,), (16,)),))
        expected = target_choices(row[None, :], params, [7])[0]
        assert judge(offer, np.stack([certain, row]), params, RULE) == Judgement((0,), expected)


GOOD = LatticeDistribution((0, 3), (12, 4))


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (Draft.chain(0, (0,)), "0 distributions for 1 tokens"),
        (Draft.chain(0, (0,), distributions=(GOOD, GOOD)), "2 distributions for 1 tokens"),
        (Draft.chain(0, (0, 3), num_forced=1, distributions=(GOOD, GOOD)), "2 distributions for 1 tokens"),
        (Draft(0, (0, 3), TreeShape((0, 0)), distributions=(GOOD, GOOD)), "judges chains and the draft is a tree"),
        (Draft.chain(0, (1,), distributions=(GOOD,)), "token 1 of the draft has probability 0"),
        (
            Draft.chain(0, (3,), distributions=(LatticeDistribution((0, 3), (16, 0)),)),
            "token 3 of the draft has probability 0",
        ),
        (Draft.chain(0, (0,), distributions=(LatticeDistribution((0, 3), (12, 3)),)), "sum to 16"),
        (Draft.chain(0, (0,), distributions=(LatticeDistribution((0, 3), (17, -1)),)), "sum to 16"),
        (Draft.chain(0, (0,), distributions=(LatticeDistribution((), ()),)), "sum to 16"),
        (Draft.chain(0, (0,), distributions=(LatticeDistribution((0, 3), (16,)),)), "2 tokens and 1 weights"),
        (Draft.chain(0, (0,), distributions=(LatticeDistribution((0, 1, 2, 3, 4), (12, 1, 1, 1, 1)),)), "at most 4"),
        (Draft.chain(0, (0,), distributions=(LatticeDistribution((3, 0), (12, 4)),)), "must ascend"),
        (Draft.chain(0, (0,), distributions=(LatticeDistribution((0, 0), (12, 4)),)), "must ascend"),
        (Draft.chain(0, (0,), distributions=(LatticeDistribution((0, 8), (12, 4)),)), "within 0 to 7"),
        (Draft.chain(0, (0,), distributions=(LatticeDistribution((-1, 0), (12, 4)),)), "within 0 to 7"),
    ],
)
def test_distributions_that_do_not_fit_are_the_peers_error(draft: Draft, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        judge(draft, np.zeros((len(draft.token_ids) + 1, VOCAB_SIZE)), SamplingParams(temperature=1.0), RULE)


def test_a_chain_with_its_parents_spelled_out_is_a_chain() -> None:
    rows = np.zeros((3, VOCAB_SIZE))
    params = SamplingParams(temperature=1.0, seed=2)
    plain = Draft.chain(0, (0, 3), distributions=(GOOD, GOOD))
    spelled = Draft(0, (0, 3), TreeShape((0, 1)), distributions=(GOOD, GOOD))
    assert judge(plain, rows, params, RULE) == judge(spelled, rows, params, RULE)
