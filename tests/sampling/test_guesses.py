from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skydraft.core import SamplingParams
from skydraft.errors import EngineError
from skydraft.sampling import guesses as guessing
from skydraft.sampling.choice import target_choices
from skydraft.sampling.guesses import best_guesses
from skydraft.sampling.warp import warp
from tests.sampling.helpers import FLAT, PEAKED, Cut, ToArray, perturbed, some_params


@pytest.fixture
def large_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "SMALL_VOCABULARY", 0)


def log_scores(row: np.ndarray, params: SamplingParams, position: int) -> np.ndarray:
    """Log-probabilities plus noise."""
    log_total: float = np.log(np.exp(warp(row, params)).sum())
    scores: np.ndarray = perturbed(row[None, :], params, [position])[0] - log_total
    return scores


@settings(max_examples=50)
@given(params=some_params, count=st.integers(1, 8))
def test_best_guesses_are_the_largest_perturbed_logits_in_order(params: SamplingParams, count: int) -> None:
    for row in (PEAKED[0], FLAT[0]):
        sums = perturbed(row[None, :], params, [6])[0]
        expected = [i for i in np.argsort(-sums, kind="stable").tolist()[:count] if sums[i] > -np.inf]
        for array in (row, torch.from_numpy(row)):
            for small_vocabulary in (0, len(row)):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(guessing, "SMALL_VOCABULARY", small_vocabulary)
                    (guesses,) = best_guesses(array[None], params, [6], count, max_candidates=len(row))
                assert list(guesses.token_ids) == expected
                assert guesses.scores == pytest.approx(log_scores(row, params, 6)[expected].tolist())


@settings(max_examples=50)
@given(params=some_params)
def test_the_best_guess_of_a_model_is_its_own_choice(params: SamplingParams) -> None:
    guesses = best_guesses(PEAKED[:2], params, [6, 9], 1, max_candidates=3000)
    assert [each.token_ids[0] for each in guesses] == target_choices(PEAKED[:2], params, [6, 9])


def test_greedy_guesses_are_the_most_probable_tokens_in_order(to_array: ToArray) -> None:
    row = to_array(np.array([0.0, 3.0, 1.0, 3.0, 2.0]))
    assert best_guesses(row[None], SamplingParams(), [0], 4)[0].token_ids == (1, 3, 4, 2)
    assert best_guesses(row[None], SamplingParams(), [0], 9)[0].token_ids == (1, 3, 4, 2, 0)


def test_fewer_guesses_come_where_fewer_tokens_survive() -> None:
    (guesses,) = best_guesses(FLAT[:1], SamplingParams(temperature=1.0, top_k=3), [0], 8)
    assert len(guesses.token_ids) == len(guesses.scores) == 3


@pytest.mark.usefixtures("large_vocabulary")
def test_of_a_large_vocabulary_the_most_probable_candidates_are_guessed_only() -> None:
    params = [SamplingParams(temperature=50.0, seed=seed) for seed in range(20)]
    guesses = {
        guess for each in params for guess in best_guesses(FLAT[:1], each, [0], 4, max_candidates=6)[0].token_ids
    }
    assert guesses <= set(np.argsort(-FLAT[0])[:6].tolist())


@pytest.mark.parametrize(
    "cut", [{}, {"top_k": 3}, {"top_k": 1000}, {"top_p": 0.3}, {"top_p": 0.95}, {"top_k": 40, "top_p": 0.8}]
)
def test_guesses_of_a_real_vocabulary_are_the_best_of_the_most_probable(cut: Cut, to_array: ToArray) -> None:
    rng = np.random.default_rng(5)
    rows = np.where(rng.random((3, 50_000)) < 0.002, 6.0, 0.0) + 2 * rng.standard_normal((3, 50_000))
    params, positions = SamplingParams(temperature=0.8, seed=4, **cut), [3, 4, 4]
    guesses = best_guesses(to_array(rows.astype(np.float32)), params, positions, 5)
    warped = warp(rows.astype(np.float32), params)
    sums = perturbed(rows.astype(np.float32), params, positions)
    for each, row, weights in zip(guesses, sums, np.exp(warped), strict=True):
        candidates = np.argsort(-weights)[:256]
        expected = candidates[np.argsort(-row[candidates])][: min(5, np.count_nonzero(weights))]
        assert list(each.token_ids) == expected.tolist()
        # Beyond the candidates the weight of what top_p leaves is not summed but taken to be top_p.
        tolerance = 1e-4 if cut.get("top_p") == 0.95 else 1e-6
        assert each.scores == pytest.approx((row[expected] - np.log(weights.sum())).tolist(), abs=tolerance)


def test_guesses_with_a_cut_read_a_row_about_as_often_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are warped in float64 for nobody: only their most probable tokens are."""
    monkeypatch.setattr(guessing, "warp", None)
    rows = np.random.default_rng(5).standard_normal((2, 50_000)).astype(np.float32)
    cuts: tuple[Cut, ...] = ({"top_k": 40}, {"top_p": 0.95}, {"top_k": 40, "top_p": 0.95})
    for cut in cuts:
        best_guesses(rows, SamplingParams(temperature=0.8, **cut), [0, 1], 4)


@pytest.mark.parametrize(("count", "max_candidates"), [(0, 8), (1, 0)])
def test_asking_for_no_guess_is_an_error(count: int, max_candidates: int) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        best_guesses(FLAT[:1], SamplingParams(), [0], count, max_candidates)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "all -inf"])
@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(temperature=0.8), SamplingParams(temperature=0.8, top_k=3, top_p=0.9)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_without_a_finite_largest_logit_is_an_error(
    bad: float, params: SamplingParams, dtype: type[np.floating], to_array: ToArray
) -> None:
    logits = np.zeros((3, 16), dtype)
    logits[1, slice(None) if bad == -np.inf else 4] = bad
    with np.errstate(invalid="ignore"), pytest.raises(EngineError, match="not a finite number"):
        best_guesses(to_array(logits), params, [0, 1, 2], 2)


@pytest.mark.parametrize("small_vocabulary", [0, 3000])
def test_narrow_logits_give_the_same_guesses(small_vocabulary: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "SMALL_VOCABULARY", small_vocabulary)
    logits = torch.from_numpy(PEAKED).to(torch.bfloat16)
    for params in (SamplingParams(), SamplingParams(temperature=0.8, seed=77)):
        narrow, wide = (best_guesses(each, params, [0, 1, 1, 2, 7], 1) for each in (logits, logits.double()))
        assert [each.token_ids for each in narrow] == [each.token_ids for each in wide]
