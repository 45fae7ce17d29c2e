from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.core import Lattice, LatticeDistribution, Rejection, SamplingParams
from skydraft.errors import EngineError
from skydraft.sampling.lattice import draw, round_to_lattice, to_lattice
from skydraft.sampling.noise import Stream, gumbel
from tests.sampling.helpers import ToArray, assert_law, softmax, total_variation

SAMPLED = SamplingParams(temperature=1.0)
ROW = np.random.default_rng(4).standard_normal(500) * 2


@given(
    probs=st.lists(st.floats(1e-6, 1), min_size=1, max_size=40),
    lattice=st.integers(1, 65536),
)
def test_weights_sum_to_the_lattice_and_none_is_off_by_one_or_more(probs: list[float], lattice: int) -> None:
    weights = round_to_lattice(probs, lattice)
    exact = lattice * np.array(probs) / sum(probs)
    assert sum(weights) == lattice
    assert min(weights) >= 0
    assert np.all(np.abs(weights - exact) < 1 + 1e-9)


@pytest.mark.parametrize(
    ("probs", "lattice", "expected"),
    [
        ([0.5, 0.25, 0.25], 4, [2, 1, 1]),
        ([0.3, 0.3, 0.4], 2, [0, 1, 1]),  # each rounds to 1; 0.6 was rounded up the most, and the first of its equals
        ([0.42, 0.43, 0.05, 0.05, 0.05], 8, [3, 4, 1, 0, 0]),  # 3.36, 3.44, 0.4 each round down
        ([0.5, 0.5], 1, [0, 1]),  # halves round up, then the first gives
        ([1.0], 7, [7]),
    ],
)
def test_the_sum_is_repaired_at_the_largest_rounding_errors(
    probs: list[float], lattice: int, expected: list[int]
) -> None:
    assert round_to_lattice(probs, lattice) == expected


@given(
    probs=st.lists(st.floats(1e-3, 1), min_size=2, max_size=4),
    lattice=st.integers(1, 12),
)
def test_no_weights_on_the_lattice_are_nearer(probs: list[float], lattice: int) -> None:
    exact = lattice * np.array(probs) / sum(probs)
    distance = np.abs(np.array(round_to_lattice(probs, lattice)) - exact).sum()
    grids = np.array(np.meshgrid(*[range(lattice + 1)] * len(probs))).reshape(len(probs), -1).T
    others = grids[grids.sum(axis=1) == lattice]
    assert distance <= np.abs(others - exact).sum(axis=1).min() + 1e-9


def test_the_support_is_the_most_probable_tokens_in_ascending_order(to_array: ToArray) -> None:
    rule = Rejection(top_k=8, lattice=4096)
    distribution = to_lattice(to_array(ROW), SAMPLED, rule.draft_lattice)
    support = np.sort(np.argsort(-ROW)[:8])
    assert distribution.token_ids == tuple(support.tolist())
    kept = softmax(ROW[support])
    assert total_variation(np.array(distribution.weights) / 4096, kept) <= 8 / 4096
    assert distribution == to_lattice(ROW, SAMPLED, rule.draft_lattice)


def test_tokens_of_weight_zero_are_left_out() -> None:
    distribution = to_lattice(np.array([0.0, 10.0, 0.0, 9.0]), SAMPLED, Rejection(top_k=4, lattice=16).draft_lattice)
    assert distribution == LatticeDistribution((1, 3), (12, 4))


def test_warping_comes_before_the_cut() -> None:
    rule = Rejection(top_k=8, lattice=64)
    assert len(to_lattice(ROW, SamplingParams(temperature=1.0, top_k=3), rule.draft_lattice).token_ids) == 3
    assert len(to_lattice(ROW, SamplingParams(temperature=0.01), rule.draft_lattice).token_ids) == 1


def test_a_vocabulary_smaller_than_the_cut_is_kept_whole() -> None:
    distribution = to_lattice(np.zeros(3), SAMPLED, Lattice(8, 9))
    assert distribution == LatticeDistribution((0, 1, 2), (3, 3, 3))


def test_a_greedy_draft_is_a_certainty_of_its_greedy_choice() -> None:
    row = np.array([0.0, 2.0, 2.0])
    distribution = to_lattice(row, SamplingParams(), Rejection(top_k=8, lattice=64).draft_lattice)
    assert distribution == LatticeDistribution((1,), (64,))
    assert draw(distribution, 7, 0) == 1


def test_draws_have_the_law_of_the_rounded_weights() -> None:
    distribution = LatticeDistribution((2, 5, 6, 9), (1, 20, 0, 11))
    drawn = [draw(distribution, 12, position) for position in range(1000)]
    counts = np.bincount(drawn, minlength=10)[[2, 5, 6, 9]]
    assert_law(counts, np.array(distribution.weights) / 32)


def test_a_draw_takes_its_noise_from_the_stream_of_drafts() -> None:
    distribution = LatticeDistribution(tuple(range(50)), (1,) * 50)
    for position in range(50):
        noise = gumbel(3, position, np.arange(50), Stream.DRAFT)
        assert draw(distribution, 3, position) == int(noise.argmax())


@pytest.mark.parametrize("params", [SamplingParams(), SAMPLED])
def test_logits_of_nan_are_an_error(params: SamplingParams) -> None:
    with pytest.raises(EngineError, match="not a finite number"):
        to_lattice(np.full(4, np.nan), params, Rejection().draft_lattice)
