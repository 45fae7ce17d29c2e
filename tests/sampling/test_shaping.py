"""Logit bias and penalties: what a row's own history says, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from skydraft.core import Grammar, SamplingParams
from skydraft.errors import EngineError
from skydraft.sampling.shaping import History, shape_logits
from tests.sampling.helpers import ToArray

VOCAB_SIZE = 12
ROWS = np.random.default_rng(3).standard_normal((4, VOCAB_SIZE)).astype(np.float32) * 3
TREE = History((3, 3, 5), ((), (3,), (7, 3, 7), (1,)))  # three paths below one text
FIELDS = [
    SamplingParams(presence_penalty=0.7),
    SamplingParams(frequency_penalty=-0.4),
    SamplingParams(repetition_penalty=1.3),
    SamplingParams(logit_bias=((0, 2.5), (3, -100.0), (11, 0.25))),
    SamplingParams(
        presence_penalty=-0.3, frequency_penalty=0.9, repetition_penalty=0.8, logit_bias=((3, 1.0), (7, -1.5))
    ),
]

token_ids = st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=6)


def defined(row: Sequence[float], params: SamplingParams, before: Sequence[int]) -> list[float]:
    """Token by token, as the docstring of SamplingParams says it."""
    bias, counts = dict(params.logit_bias), Counter(before)
    shaped = []
    for token_id, logit in enumerate(map(float, row)):
        if token_id in bias:
            logit = float(np.float32(logit + bias[token_id]))
        if count := counts[token_id]:
            logit = logit / params.repetition_penalty if logit > 0 else logit * params.repetition_penalty
            logit = float(np.float32(logit - params.frequency_penalty * count - params.presence_penalty))
        shaped.append(logit)
    return shaped


@pytest.mark.parametrize("params", FIELDS)
def test_each_row_is_shaped_by_the_text_and_its_own_path_counted_once(params: SamplingParams) -> None:
    shaped = shape_logits(ROWS, params, TREE)
    for row, of_row, path in zip(ROWS, shaped, TREE.paths, strict=True):
        assert of_row.tolist() == pytest.approx(defined(row, params, [*TREE.text_ids, *path]), rel=1e-6)
    assert np.array_equal(shaped, shape_logits(torch.from_numpy(ROWS), params, TREE).numpy())


@given(text_ids=token_ids, path=token_ids, params=st.sampled_from(FIELDS))
def test_a_node_is_shaped_as_if_its_path_were_text(
    text_ids: list[int], path: list[int], params: SamplingParams
) -> None:
    in_tree = shape_logits(ROWS[:1], params, History(text_ids, [path]))
    assert np.array_equal(in_tree, shape_logits(ROWS[:1], params, History([*text_ids, *path], [()])))


def test_logits_that_nothing_shapes_are_left_as_they_are() -> None:
    assert shape_logits(ROWS, SamplingParams(temperature=0.8, min_p=0.1, top_k=3), TREE) is ROWS
    before = ROWS.copy()
    shape_logits(ROWS, FIELDS[-1], TREE)
    assert np.array_equal(ROWS, before)
    assert shape_logits(ROWS[:0], FIELDS[0], History((1,), ())).shape == (0, VOCAB_SIZE)


def test_narrow_logits_are_shaped_in_float32_and_wide_ones_stay_wide() -> None:
    narrow = torch.from_numpy(ROWS).to(torch.bfloat16)
    shaped = shape_logits(narrow, SamplingParams(logit_bias=((2, 0.001),)), TREE)
    assert shaped.dtype == torch.float32
    assert (shaped[:, 2] != narrow[:, 2].float()).all()
    assert shape_logits(ROWS.astype(np.float64), FIELDS[0], TREE).dtype == np.float64


def test_ids_that_a_model_has_not_are_not_shaped() -> None:
    shaped = shape_logits(ROWS[:, :4], FIELDS[-1], TREE)
    assert np.array_equal(shaped, shape_logits(ROWS, FIELDS[-1], TREE)[:, :4])


def test_repetition_is_penalised_as_transformers_does() -> None:
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([[3, 3, 5]]), torch.from_numpy(ROWS[:1]).clone())
    ours = shape_logits(ROWS[:1], SamplingParams(repetition_penalty=1.3), History((3, 3, 5), ((),)))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)


def test_what_is_masked_is_left_out_and_a_row_without_a_mask_is_not_changed(to_array: ToArray) -> None:
    params = SamplingParams(grammar=Grammar("regex", "a"), logit_bias=((2, 1.0),))
    masks = [np.arange(VOCAB_SIZE) % 3 == 2, None, np.arange(6) == 5, np.arange(99) > 7]
    shaped = np.asarray(shape_logits(to_array(ROWS), params, TREE, masks))
    biased = shape_logits(ROWS, SamplingParams(logit_bias=((2, 1.0),)), TREE)
    assert np.isfinite(shaped).tolist() == [
        [token_id % 3 == 2 for token_id in range(VOCAB_SIZE)],
        [True] * VOCAB_SIZE,
        [token_id == 5 for token_id in range(VOCAB_SIZE)],
        [token_id > 7 for token_id in range(VOCAB_SIZE)],
    ]
    assert np.array_equal(shaped[np.isfinite(shaped)], biased[np.isfinite(shaped)])


def test_a_row_that_no_token_may_follow_is_an_error() -> None:
    params, masks = SamplingParams(grammar=Grammar("regex", "a")), [np.arange(99) == 50]
    with pytest.raises(EngineError, match="no token for what the grammar asks for"):
        shape_logits(ROWS[:1], params, History((), ((),)), masks)
