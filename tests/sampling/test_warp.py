from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from skydraft.core import SamplingParams
from skydraft.sampling.choice import sampled_choices
from skydraft.sampling.warp import log_probabilities, probabilities, warp, without_improbable
from tests.sampling.helpers import ToArray, softmax

SETTINGS = list(itertools.product([0.3, 1.0, 2.5], [0, 1, 5, 64, 1000], [1.0, 0.95, 0.5, 1e-9]))
RNG = np.random.default_rng(7)
SMOOTH = RNG.standard_normal((8, 64)) * 3
TIED = RNG.integers(-2, 3, (8, 64)).astype(np.float64)
MASKED = np.where(RNG.random((8, 64)) < 0.4, -np.inf, SMOOTH)


def theirs(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The warpers of transformers, in the order of vLLM: min_p is the first that cuts."""
    scores = torch.from_numpy(logits)
    scores = TemperatureLogitsWarper(params.temperature)(None, scores)
    if params.min_p:
        scores = MinPLogitsWarper(params.min_p)(torch.LongTensor(), scores)
    if params.top_k:
        scores = TopKLogitsWarper(params.top_k)(None, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(None, scores)
    warped: np.ndarray = scores.numpy()
    return warped


@pytest.mark.parametrize("logits", [SMOOTH, MASKED], ids=["smooth", "masked"])
@pytest.mark.parametrize(("temperature", "top_k", "top_p"), SETTINGS)
def test_warping_is_that_of_transformers(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    expected = theirs(logits, params)
    for warped in (warp(logits, params), warp(torch.from_numpy(logits), params).numpy()):
        assert np.array_equal(np.isneginf(warped), np.isneginf(expected))
        np.testing.assert_allclose(warped, expected - expected.max(axis=-1, keepdims=True), rtol=0, atol=1e-12)


@pytest.mark.parametrize("min_p", [0.02, 0.5, 1.0])
@pytest.mark.parametrize(("temperature", "top_k", "top_p"), SETTINGS)
def test_min_p_cuts_before_top_k_and_top_p(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    expected = theirs(SMOOTH, params)
    for warped in (warp(SMOOTH, params), warp(torch.from_numpy(SMOOTH), params).numpy()):
        assert np.array_equal(np.isneginf(warped), np.isneginf(expected))


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), SETTINGS)
def test_of_tied_tokens_as_many_stay_as_in_transformers(temperature: float, top_k: int, top_p: float) -> None:
    """Which of them stay at the edge of top_p, transformers leaves to a sort that is not stable."""
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    expected = theirs(TIED, params)
    for warped in (warp(TIED, params), warp(torch.from_numpy(TIED), params).numpy()):
        shifted = np.sort(expected, axis=-1) - expected.max(axis=-1, keepdims=True)
        np.testing.assert_allclose(np.sort(warped, axis=-1), shifted, rtol=0, atol=1e-12)


def test_ties_at_the_edge_of_top_k_stay_and_at_the_edge_of_top_p_the_lowest_ids_stay() -> None:
    row = np.array([0.0, 1.0, 1.0, 1.0])
    by_top_k = warp(row, SamplingParams(temperature=1.0, top_k=2))
    by_top_p = warp(row, SamplingParams(temperature=1.0, top_p=0.5))
    by_both = warp(row, SamplingParams(temperature=1.0, top_k=1, top_p=0.6))
    assert np.isfinite(by_top_k).tolist() == [False, True, True, True]
    assert np.isfinite(by_top_p).tolist() == [False, True, True, False]
    assert np.isfinite(by_both).tolist() == [False, True, True, False]


def test_top_p_keeps_the_smallest_set_that_has_the_probability() -> None:
    logits = np.log(np.array([0.1, 0.4, 0.2, 0.3]))
    kept = [np.isfinite(warp(logits, SamplingParams(temperature=1.0, top_p=p))).sum() for p in (0.39, 0.41, 0.69, 0.71)]
    assert kept == [1, 2, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_logits_are_warped_as_the_same_values_in_float64(dtype: torch.dtype) -> None:
    logits = torch.from_numpy(SMOOTH).to(dtype)
    params = SamplingParams(temperature=0.7, top_k=20, top_p=0.9)
    assert torch.equal(warp(logits, params), warp(logits.to(torch.float64), params))


def test_numpy_float16_and_float32_are_warped_as_the_same_values_in_float64() -> None:
    params = SamplingParams(temperature=0.7, top_k=20, top_p=0.9)
    for dtype in (np.float16, np.float32):
        logits = SMOOTH.astype(dtype)
        assert np.array_equal(warp(logits, params), warp(logits.astype(np.float64), params))


def test_temperature_and_top_k_have_equal_bits_in_numpy_and_torch() -> None:
    params = SamplingParams(temperature=0.7, top_k=20)
    logits = SMOOTH.astype(np.float32)
    assert np.array_equal(warp(logits, params), warp(torch.from_numpy(logits), params).numpy())


def test_any_leading_shape_is_warped_row_by_row(to_array: ToArray) -> None:
    params = SamplingParams(temperature=0.7, top_k=20, top_p=0.9)
    expected = np.stack([np.asarray(warp(to_array(row), params)) for row in SMOOTH])
    assert np.array_equal(np.asarray(warp(to_array(SMOOTH.reshape(2, 4, 64)), params)), expected.reshape(2, 4, 64))


def test_warping_leaves_its_input_alone(to_array: ToArray) -> None:
    logits = to_array(SMOOTH.copy())
    warp(logits, SamplingParams(temperature=0.5, top_k=3, top_p=0.9))
    probabilities(logits)
    assert np.array_equal(np.asarray(logits), SMOOTH)


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-310])
def test_the_coldest_temperatures_choose_as_greedy_without_overflow(temperature: float) -> None:
    logits = np.concatenate([SMOOTH, np.full((1, 64), np.finfo(np.float32).min)]).astype(np.float32)
    logits[-1, 5] = np.finfo(np.float32).max
    params = SamplingParams(temperature=temperature, top_p=0.9)
    assert sampled_choices(logits, params, range(9)) == logits.argmax(axis=-1).tolist()


def test_warping_to_temperature_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="use greedy_choices"):
        warp(SMOOTH, SamplingParams(temperature=0.0))


def test_probabilities_are_the_softmax_and_sum_to_one(to_array: ToArray) -> None:
    for logits in (SMOOTH, MASKED, SMOOTH + 1e5):
        probs = np.asarray(probabilities(to_array(logits)))
        np.testing.assert_allclose(probs, softmax(logits), rtol=1e-12)
        np.testing.assert_allclose(np.exp(np.asarray(log_probabilities(to_array(logits)))), probs, rtol=1e-12)


def test_min_p_cuts_narrow_logits_where_it_cuts_the_same_wide_ones() -> None:
    logits = np.random.default_rng(3).standard_normal((50, 400)).astype(np.float32)
    logits[:, 0] = 4.0
    for number, temperature in enumerate((0.3, 0.7, 1.1)):
        share = math.exp((float(logits[number, 7]) - 4.0) / temperature)  # a token that stands at the edge, or nearly
        params = SamplingParams(temperature=temperature, min_p=share)
        kept = np.isfinite(without_improbable(logits, params))
        assert np.array_equal(kept, np.isfinite(without_improbable(logits.astype(np.float64), params)))
        assert np.array_equal(kept, np.isfinite(without_improbable(torch.from_numpy(logits), params).numpy()))
