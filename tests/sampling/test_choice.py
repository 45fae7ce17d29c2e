from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from msgspec.structs import replace

from skydraft.core import SamplingParams
from skydraft.errors import EngineError
from skydraft.sampling import arrays, choice, gumbel_max
from skydraft.sampling import warp as warping
from skydraft.sampling.choice import (
    ChoiceRequest,
    choices_together,
    sampled_choices,
    target_choices,
)
from skydraft.sampling.gumbel_max import greedy_choices
from skydraft.sampling.noise import Stream, gumbel, rough_gumbel
from skydraft.sampling.warp import warp
from tests.sampling.helpers import (
    FLAT,
    PEAKED,
    POSITIONS,
    UNIFORM,
    ToArray,
    assert_law,
    perturbed,
    softmax,
    some_params,
    total_variation,
)
from tests.spy import spy_on


@pytest.mark.parametrize("logits", [PEAKED, FLAT, UNIFORM], ids=["peaked", "flat", "uniform"])
@settings(max_examples=30)
@given(params=some_params)
def test_choices_are_the_largest_of_all_perturbed_logits(logits: np.ndarray, params: SamplingParams) -> None:
    expected = perturbed(logits, params, POSITIONS).argmax(axis=-1).tolist()
    assert target_choices(logits, params, POSITIONS) == expected
    assert target_choices(torch.from_numpy(logits), params, POSITIONS) == expected


def wanted_of_many(rng: np.random.Generator, to_array: ToArray) -> list[ChoiceRequest]:
    """Texts of many kinds: peaked and flat, of none to five rows, vocabularies of 3000 and 2990, some alike."""
    warm = SamplingParams(temperature=0.8)
    kinds = [SamplingParams(), warm, replace(warm, top_k=40), SamplingParams(temperature=1.3, top_p=0.9)]
    wanted = []
    for number in range(40):
        num_rows = int(rng.integers(0, 6))
        logits = to_array((PEAKED if number % 3 else FLAT).astype(np.float32)[rng.permutation(5)[:num_rows]])
        params = replace(kinds[rng.integers(4)], seed=int(rng.integers(2**64, dtype=np.uint64)))
        cut = 2990 if number % 5 == 0 else 3000
        wanted.append(ChoiceRequest(logits[:, :cut], params, rng.integers(0, 2**20, num_rows).tolist()))
    return wanted


@pytest.mark.parametrize("block_elements", [2**22, 20_000])
def test_choices_for_many_texts_together_are_those_of_each_alone(
    block_elements: int, to_array: ToArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "_BLOCK_ELEMENTS", block_elements)
    wanted = wanted_of_many(np.random.default_rng(8), to_array)
    alone = [target_choices(*each) for each in wanted]
    assert choices_together(wanted) == alone
    assert choices_together([]) == []


def test_texts_that_differ_in_nothing_but_seeds_are_one_race(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = spy_on(monkeypatch, choice, "gumbel_argmax", lambda rows, *_: len(rows))
    warm = SamplingParams(temperature=0.8)
    cuts = [warm, replace(warm, top_k=3)]
    choices_together([ChoiceRequest(FLAT, replace(cuts[seed % 2], seed=seed), POSITIONS) for seed in range(10)])
    assert sizes == [25, 25]


def test_what_is_joined_at_a_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_BLOCK_ELEMENTS", 3 * FLAT.size)
    sizes = spy_on(monkeypatch, choice, "greedy_choices", len)
    choices_together([ChoiceRequest(FLAT, SamplingParams(), POSITIONS)] * 8)
    assert sizes == [15, 15, 10]


def test_greedy_choices_widen_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warping, "to_float64", None)
    rows = torch.from_numpy(PEAKED).to(torch.bfloat16)
    assert choices_together([ChoiceRequest(rows, SamplingParams(), POSITIONS)] * 2) == [rows.argmax(-1).tolist()] * 2


def test_a_broken_row_or_position_of_one_text_is_an_error_for_all() -> None:
    good = ChoiceRequest(FLAT, SamplingParams(temperature=0.8), POSITIONS)
    with pytest.raises(EngineError, match="not a finite number"):
        choices_together([good, good._replace(logits=FLAT * np.nan)])
    with pytest.raises(ValueError, match="2 positions were given for 5 rows"):
        choices_together([good, good._replace(positions=[1, 2])])


@pytest.fixture
def rows_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gumbel_max, "_SMALL_SIZE", 0)


@pytest.mark.usefixtures("rows_are_large")
def test_a_flat_row_does_not_cost_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = spy_on(monkeypatch, gumbel_max, "vocabulary_uniform", lambda seed, positions, *_: len(positions))
    mixed = np.where(np.arange(5)[:, None] == 3, FLAT, 3 * PEAKED)
    params = SamplingParams(temperature=1.0, seed=3)
    assert sampled_choices(mixed, params, POSITIONS) == perturbed(mixed, params, POSITIONS).argmax(axis=-1).tolist()
    assert sizes == [1]


@pytest.mark.usefixtures("rows_are_large")
def test_both_ways_to_narrow_the_race_keep_the_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(temperature=1.0, seed=8)
    for logits in (PEAKED, FLAT):
        expected = perturbed(logits, params, POSITIONS).argmax(axis=-1).tolist()
        for gain in (0, 10**9):
            monkeypatch.setattr(gumbel_max, "_CONTIGUOUS_GAIN", gain)
            assert sampled_choices(logits, params, POSITIONS) == expected


@pytest.mark.usefixtures("rows_are_large")
def test_noise_is_computed_for_few_tokens_of_a_peaked_row(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = spy_on(monkeypatch, gumbel_max, "uniform", lambda seed, positions, token_ids, _: len(token_ids))
    monkeypatch.setattr(gumbel_max, "vocabulary_uniform", None)
    sampled_choices(3 * PEAKED, SamplingParams(temperature=1.0, seed=3), POSITIONS)
    sampled_choices(FLAT, SamplingParams(temperature=1.0, seed=3, top_k=4), POSITIONS)
    assert max(sizes) < PEAKED.size / 20
    assert sizes[-1] == 4 * len(POSITIONS)


def test_rows_of_one_place_share_their_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = spy_on(monkeypatch, gumbel_max, "vocabulary_uniform", lambda seed, positions, *_: len(positions))
    params, positions = SamplingParams(temperature=1.0, seed=3), [7, 8, 8, 7, 9]
    assert sampled_choices(FLAT, params, positions) == perturbed(FLAT, params, positions).argmax(axis=-1).tolist()
    assert sizes == [3]


@pytest.mark.parametrize("error", [-4e-10, 0.0, 4e-10])
def test_exact_noise_decides_where_rough_noise_cannot(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tokens whose sums differ by 1e-11, and rough noise that is wrong by more."""
    noise = gumbel(3, 5, np.arange(9), Stream.TARGET)
    row = np.where(np.arange(9) < 2, -noise, -99.0) + np.where(np.arange(9) == 1, 1e-11, 0.0)
    sizes = spy_on(monkeypatch, gumbel_max, "gumbel", lambda seed, positions, token_ids, _: len(token_ids))
    monkeypatch.setattr(gumbel_max, "rough_gumbel", lambda u: rough_gumbel(u) + np.where(np.arange(9) == 0, error, 0.0))
    assert gumbel_max.gumbel_argmax(row[None], [(3, 5)], Stream.TARGET) == [1]
    assert sizes == [2]


def test_exact_noise_is_hardly_ever_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gumbel_max, "gumbel", None)
    for seed in range(20):
        sampled_choices(FLAT, SamplingParams(temperature=1.0, seed=seed), POSITIONS)


def test_a_choice_depends_on_its_row_and_position_only(to_array: ToArray, monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(temperature=0.8, top_p=0.9, seed=77)
    logits = to_array(PEAKED.astype(np.float32))
    together = target_choices(logits, params, POSITIONS)
    alone = [target_choices(logits[i : i + 1], params, POSITIONS[i : i + 1])[0] for i in range(5)]
    monkeypatch.setattr(arrays, "_BLOCK_ELEMENTS", 6000)
    in_blocks = target_choices(logits, params, POSITIONS)
    assert together == alone == in_blocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_logits_are_chosen_from_as_the_same_values_in_float64(dtype: torch.dtype) -> None:
    logits = torch.from_numpy(PEAKED).to(dtype)
    for params in (SamplingParams(), SamplingParams(temperature=0.8, seed=77)):
        assert target_choices(logits, params, POSITIONS) == target_choices(logits.double(), params, POSITIONS)


@pytest.mark.parametrize("changes", [{}, {"top_k": 4}, {"top_p": 0.7}, {"temperature": 2.0}])
def test_choices_over_many_positions_have_the_law_of_the_warped_logits(changes: dict[str, float]) -> None:
    row = np.random.default_rng(1).standard_normal(8) * 1.5
    params = replace(SamplingParams(temperature=0.8, seed=1), **changes)
    chosen = sampled_choices(np.tile(row, (40_000, 1)), params, range(40_000))
    assert_law(np.bincount(chosen, minlength=8), softmax(warp(row, params)))


def test_choices_over_many_seeds_have_the_law_of_the_warped_logits() -> None:
    row = np.random.default_rng(2).standard_normal((1, 8))
    chosen = [sampled_choices(row, SamplingParams(temperature=1.0, seed=seed * 2**20), [3])[0] for seed in range(500)]
    assert_law(np.bincount(chosen, minlength=8), softmax(row[0]))


def test_choices_of_neighbouring_positions_are_independent() -> None:
    row = np.random.default_rng(3).standard_normal(4)
    params = SamplingParams(temperature=1.0, seed=5)
    chosen = np.array(sampled_choices(np.tile(row, (40_000, 1)), params, range(40_000)))
    pairs = chosen[0::2] * 4 + chosen[1::2]
    assert_law(np.bincount(pairs, minlength=16), np.outer(softmax(row), softmax(row)).ravel())


def test_greedy_takes_the_lowest_id_of_equal_logits(to_array: ToArray) -> None:
    logits = to_array(np.array([[0.0, 2.0, 1.0, 2.0], [3.0, 3.0, 3.0, 3.0], [-np.inf, -np.inf, 0.0, 0.0]]))
    assert greedy_choices(logits) == [1, 0, 2]
    assert target_choices(logits, SamplingParams(seed=9), [0, 1, 2]) == [1, 0, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "all -inf"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_row_without_a_finite_largest_logit_is_an_error(bad: float, temperature: float, to_array: ToArray) -> None:
    logits = np.zeros((3, 16))
    logits[1, slice(None) if bad == -np.inf else 4] = bad
    params = SamplingParams(temperature=temperature, top_k=3, top_p=0.9)
    with pytest.raises(EngineError, match="not a finite number"):
        target_choices(to_array(logits), params, [0, 1, 2])


def test_positions_that_do_not_fit_the_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 positions were given for 2 rows"):
        target_choices(np.zeros((2, 4)), SamplingParams(), [0, 1, 2])
    with pytest.raises(ValueError, match="-1 is negative"):
        target_choices(np.zeros((2, 4)), SamplingParams(), [0, -1])


@pytest.mark.parametrize("case", range(4))
def test_shared_noise_agrees_at_least_as_often_as_the_bound(case: int) -> None:
    """Daliri et al. 2024: (1 - TV) / (1 + TV); 4 standard deviations are allowed, a false alarm in 30,000."""
    rng = np.random.default_rng(case)
    draft, target = rng.standard_normal((2, 8)) * [0.5, 1.0, 2.0, 4.0][case]
    params = SamplingParams(temperature=1.0, seed=case)
    num = 20_000
    guesses = np.array(sampled_choices(np.tile(draft, (num, 1)), params, range(num)))
    choices = np.array(sampled_choices(np.tile(target, (num, 1)), params, range(num)))
    distance = total_variation(softmax(draft), softmax(target))
    bound = (1 - distance) / (1 + distance)
    assert (guesses == choices).mean() > bound - 4 * np.sqrt(bound * (1 - bound) / num)
