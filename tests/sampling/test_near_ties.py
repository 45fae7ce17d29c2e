"""Near ties: each row in which a small change of the logits changes the choice counts, and no row far from that."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skydraft.core import SamplingParams
from skydraft.sampling.choice import target_choices
from skydraft.sampling.near_ties import near_ties

GREEDY = SamplingParams()
WAYS = (
    GREEDY,
    SamplingParams(temperature=0.8, seed=5),
    SamplingParams(temperature=0.8, seed=5, top_k=8),
    SamplingParams(temperature=1.3, seed=2**63 + 1, top_p=0.7),
    SamplingParams(temperature=0.5, seed=5, top_p=0.9, top_k=12),
    SamplingParams(temperature=0.8, seed=5, min_p=0.2),
    SamplingParams(temperature=1.1, seed=5, min_p=0.1, top_k=9),
)


def counted(logits: np.ndarray, params: SamplingParams, gap_change: float) -> list[int]:
    """Of each row by itself."""
    positions = range(len(logits))
    choices = target_choices(logits, params, positions)
    return [
        len(near_ties(logits[row : row + 1], params, [row], [choices[row]], gap_change)) for row in range(len(logits))
    ]


def test_a_greedy_choice_is_near_a_tie_where_the_second_is_as_near_as_stated() -> None:
    logits = np.array([[0, 3, 2.75], [3, 0, 2.5], [1, 1, 0]], dtype=np.float32)
    assert counted(logits, GREEDY, 0.25) == [1, 0, 1]
    assert counted(logits, GREEDY, 0.2499) == [0, 0, 1]
    assert counted(logits, GREEDY, 0.0) == [0, 0, 1]


def test_all_rows_are_counted_together_as_one_by_one() -> None:
    logits = np.random.default_rng(1).standard_normal((40, 300), dtype=np.float32) * 3
    for params in WAYS:
        choices = target_choices(logits, params, range(40))
        each = counted(logits, params, 0.3)
        assert 0 < sum(each) < 40
        rows = [row for row, count in enumerate(each) if count]
        assert near_ties(logits, params, range(40), choices, 0.3) == rows
        assert near_ties(torch.from_numpy(logits), params, range(40), choices, 0.3) == rows
        assert near_ties(logits[:0], params, [], [], 0.3) == []


@pytest.mark.parametrize("params", WAYS)
def test_a_choice_that_a_change_flips_was_near_a_tie(params: SamplingParams) -> None:
    rng = np.random.default_rng(7)
    logits = rng.standard_normal((400, 60), dtype=np.float32) * 3
    near = np.array(counted(logits, params, 0.2), dtype=bool)
    changes = rng.uniform(-0.1, 0.1, size=(20, *logits.shape)).astype(np.float32)  # of differences at most 0.2
    has_flipped = np.zeros(len(logits), dtype=bool)
    before = target_choices(logits, params, range(len(logits)))
    for change in changes:
        has_flipped |= np.array(target_choices(logits + change, params, range(len(logits)))) != np.array(before)
    assert has_flipped.sum() > 10
    assert not (has_flipped & ~near).any()
    assert near.mean() < 0.7


def test_a_repetition_penalty_stretches_the_change() -> None:
    logits = np.array([[0, 3, 2.6]], dtype=np.float32)
    for penalty in (2.0, 0.5):
        assert counted(logits, SamplingParams(repetition_penalty=penalty), 0.25) == [1]
    assert counted(logits, GREEDY, 0.25) == [0]


def test_what_no_one_can_choose_is_no_rival() -> None:
    logits = np.full((1, 20), -np.inf, dtype=np.float32)
    logits[0, 4] = 1.0
    for params in WAYS:
        assert counted(logits, params, 5.0) == [0]


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 0.9}, {"top_p": 0.9, "top_k": 2, "min_p": 0.1}])
def test_the_only_token_that_is_kept_is_near_no_tie_where_it_leads_by_far(cut: dict[str, float]) -> None:
    params = SamplingParams(temperature=0.8, seed=5, **cut)  # type: ignore[arg-type]
    assert counted(np.array([[10, 0, 1, 2]], dtype=np.float32), params, 0.2) == [0]


def test_the_only_token_that_is_kept_is_near_a_tie_where_another_may_take_its_place() -> None:
    params = SamplingParams(temperature=0.8, seed=5, top_k=1)
    assert counted(np.array([[10, 9.9, 1], [10, 9.7, 1]], dtype=np.float32), params, 0.2) == [1, 0]
