"""Hugging Face models on a CPU: a row has the same bits in any company; with fast_math it has not, which is found."""

from __future__ import annotations

import platform
from collections.abc import Callable

import pytest
import torch

from skydraft.engines.base import Extension
from skydraft.engines.huggingface import row_batch, slot_engine
from skydraft.engines.huggingface.slot_engine import SlotEngine
from skydraft.engines.load import load_engine
from skydraft.engines.self_test import TextLengths, compare_rows, hold_to_promise
from skydraft.engines.settings import EngineSettings
from tests.engines.operations import text_prompt

Start = Callable[..., SlotEngine]
DTYPES = ["float32", "bfloat16", "float16"]
SEVERAL_PAGES = TextLengths(prompt=300, text=80, blocks=((3, 9), (9, 36), (80, 80)))
PAST_THE_WINDOW = TextLengths(prompt=40, text=40, blocks=((2, 8), (5, 40), (33, 40)))
on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="it was measured on x86 alone")


@on_x86
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_deep_model_gives_the_same_bits_in_any_company(start: Start, dtype: str) -> None:
    engine = start("deep", num_slots=2, dtype=dtype)
    assert engine.row_promise.is_invariant
    found = compare_rows(engine, SEVERAL_PAGES)
    assert (found.ways, found.gap_change, found.largest) == ((), 0.0, 0.0)
    assert found.num_rows > 150


@on_x86
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["gemma3", "phi3", "cohere2", "windowed"])
def test_windows_are_no_exception(start: Start, kind: str, dtype: str) -> None:
    assert compare_rows(start(kind, num_slots=2, dtype=dtype), PAST_THE_WINDOW).ways == ()


@on_x86
def test_several_threads_are_no_exception(start: Start) -> None:
    engine, num_threads = start("deep"), torch.get_num_threads()
    slot = engine.open(text_prompt(1, 2, 3)).slot
    torch.set_num_threads(1)
    try:
        expected = torch.cat([engine.extend([Extension.chain(slot, [8 + i])])[0] for i in range(11)])
        torch.set_num_threads(2)
        for length in (5, 11):  # which two threads split
            engine.crop(slot, 0)
            (rows,) = engine.extend([Extension.chain(slot, range(8, 8 + length))])
            assert torch.equal(rows, expected[:length])
    finally:
        torch.set_num_threads(num_threads)


@on_x86
def test_the_embedded_target_keeps_its_promise() -> None:
    engine = load_engine("embedded", "target", EngineSettings(num_slots=2, max_length=128, self_test=True))
    assert engine.row_promise.is_invariant
    assert engine.row_promise.gap_change == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_rounds_is_found_and_measured(start: Start, dtype: str) -> None:
    engine = start("deep", num_slots=2, dtype=dtype, fast_math=True)
    assert not engine.row_promise.is_invariant
    found = hold_to_promise(engine)
    assert found is not None
    assert {"blocks of 8", "blocks of 33", "trees"} <= set(found.ways)
    assert 0 < found.gap_change <= 2 * found.largest
    assert engine.row_promise.gap_change == found.gap_change


@on_x86
def test_rows_that_are_not_filled_up_are_found(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_batch, "ROW_UNITS", (1,))
    engine = start("deep", num_slots=2)
    assert engine.row_promise.is_invariant
    assert "blocks of 2" in compare_rows(engine).ways


def test_a_draft_is_as_fast_as_can_be() -> None:
    assert not load_engine("embedded", "draft").row_promise.is_invariant


@pytest.mark.parametrize("config", [{"num_experts": 8}, {"num_local_experts": 4}, {"attn_logit_softcapping": 50.0}])
def test_mixtures_of_experts_and_squeezed_scores_are_not_promised(start: Start, config: dict[str, float]) -> None:
    model = start("llama")._model
    model.model.config.update(config)
    assert not slot_engine._row_promise(model, EngineSettings()).is_invariant
