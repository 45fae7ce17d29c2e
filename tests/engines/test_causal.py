from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from skydraft.engines.base import Extension
from skydraft.engines.huggingface.kv_cache import SlotLayer
from skydraft.engines.huggingface.slot_engine import SlotEngine
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.errors import EngineError, PromptRejected
from skydraft.text.checkpoint import Checkpoint
from skydraft.text.tokenizer import FolderTokenizer
from tests.engines import contract
from tests.engines.hugging_face import hugging_face, plain
from tests.engines.operations import RandomOperations, text_prompt
from tests.spy import spy_on

Start = Callable[..., SlotEngine]
Saved = Callable[[str], Path]
KINDS = ["llama", "qwen2", pytest.param("target", marks=pytest.mark.text)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "fast_math"), [(1, False), (2, True)])
def test_ragged_batches_of_chains_and_trees_equal_hugging_face_from_scratch(
    start: Start, saved: Saved, kind: str, seed: int, fast_math: bool
) -> None:
    engine = start(kind, num_slots=5, prefill_chunk=5, fast_math=fast_math)
    operations = RandomOperations(engine, plain(saved(kind)), seed, vocab_size=engine.vocabulary.num_tokens)
    operations.run(35)
    assert operations.largest_difference > 0


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_text_equals_generate(start: Start, saved: Saved, kind: str) -> None:
    engine = start(kind)
    slot, logits = engine.open(text_prompt(9, 10, 11))
    written = [int(logits.argmax())]
    while len(written) < 30:
        (rows,) = engine.extend([Extension.chain(slot, written[-1:])])
        written.append(int(rows[0].argmax()))
    prompt = torch.tensor([[9, 10, 11]])
    texts = hugging_face(saved(kind)).generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=30,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert written == texts[0, 3:].tolist()


@pytest.mark.text
def test_the_real_model_goes_on_with_a_story(start: Start, saved: Saved) -> None:
    engine = start("target")
    tokenizer = FolderTokenizer(Checkpoint.open(saved("target")))
    slot, logits = engine.open(text_prompt(*tokenizer.encode("Once upon a time,", add_special=True)))
    written = [int(logits.argmax())]
    for _ in range(11):
        written.append(int(engine.extend([Extension.chain(slot, written[-1:])])[0][0].argmax()))
    assert tokenizer.decode(written).startswith("an ordinary cat named Kitty")


@pytest.mark.parametrize("chunk", [1, 3, 40])
def test_a_prompt_read_in_chunks_gives_the_same_logits(start: Start, saved: Saved, chunk: int) -> None:
    engine = start("qwen2", prefill_chunk=chunk)
    prompt = text_prompt(*range(8, 28))
    logits = engine.open(prompt).logits
    np.testing.assert_allclose(logits, plain(saved("qwen2"))(prompt, [])[-1], atol=1e-5)


def test_only_the_last_row_of_a_prompt_goes_through_the_head(start: Start) -> None:
    engine = start("llama", fast_math=True)
    rows: list[int] = []
    head = engine._model.model.lm_head
    head.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[1]))
    slot = engine.open(text_prompt(*range(8, 28))).slot
    engine.extend([Extension.chain(slot, [8, 9, 10])])
    assert rows == [1, 3]


def stores_of(engine: SlotEngine) -> list[torch.Tensor]:
    """Keys and values of every layer."""
    layers = engine._cache.layers
    return [store for layer in layers if isinstance(layer, SlotLayer) for store in layer.stores]


def test_slots_that_lie_together_are_attended_to_without_a_copy(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start("llama", num_slots=4, fast_math=True)
    slots = [engine.open(text_prompt(8, 9)).slot for _ in range(4)]
    stores = [store.untyped_storage().data_ptr() for store in stores_of(engine)]
    calls = spy_on(
        monkeypatch,
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda query, key, value, **_: [tensor.untyped_storage().data_ptr() for tensor in (key, value)],
    )
    engine.extend([Extension.chain(slots[i], [8, 9][: 1 + i % 2]) for i in (2, 0, 1)])
    assert [seen for call in calls for seen in call] == stores


def test_a_batch_of_slots_that_lie_apart_is_the_same(start: Start, saved: Saved) -> None:
    engine = start("qwen2", num_slots=9)
    slots = [engine.open(text_prompt(8 + i, 9)).slot for i in range(9)]
    rows = engine.extend([Extension.chain(slots[i], [20 + i, 30]) for i in (8, 0)])
    from_scratch = plain(saved("qwen2"))
    for i, row in zip((8, 0), rows, strict=True):
        np.testing.assert_allclose(row, from_scratch(text_prompt(8 + i, 9), [20 + i, 30])[1:], atol=1e-5)


def test_an_overflow_leaves_all_slots_as_they_were(start: Start, saved: Saved) -> None:
    engine = start("llama", num_slots=2, max_length=6)
    contract.check_that_an_overflow_changes_no_slot(engine, plain(saved("llama")), 1e-5)


@pytest.mark.parametrize("check", contract.OF_SUBTREES)
def test_a_subtree_may_be_kept(start: Start, saved: Saved, check: contract.Check) -> None:
    check(start("qwen2"), plain(saved("qwen2")), 1e-5)


def test_a_full_slot_can_be_used_to_its_last_index(start: Start, saved: Saved) -> None:
    engine = start("llama", num_slots=2, max_length=6)
    first, second = engine.open(text_prompt(8, 9, 10)).slot, engine.open(text_prompt(11)).slot
    rows = engine.extend([Extension.chain(first, [12, 13, 14]), Extension.chain(second, [15])])
    np.testing.assert_allclose(rows[0], plain(saved("llama"))(text_prompt(8, 9, 10), [12, 13, 14])[1:], atol=1e-5)


def test_a_prompt_begins_with_what_another_slot_has_read(start: Start) -> None:
    prompts = text_prompt(*range(8, 40)), text_prompt(*range(8, 38), 9, 9, 9)
    contract.check_that_a_prompt_begins_with_what_another_slot_has_read(start("llama", num_slots=2), *prompts, 30)


def test_prompts_that_the_model_cannot_take_are_rejected_and_take_no_slot(start: Start) -> None:
    contract.check_that_rejected_prompts_take_no_slot(start("llama", num_slots=1))


def test_a_token_beyond_the_vocabulary_cannot_be_appended(start: Start) -> None:
    engine = start("llama")
    slot = engine.open(text_prompt(8)).slot
    with pytest.raises(EngineError, match="token id 64 "):
        engine.extend([Extension.chain(slot, [9, 64])])
    assert engine.extend([Extension.chain(slot, [9])])[0].shape == (1, 64)


def test_a_failed_prompt_gives_its_slot_back(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start("llama", num_slots=1)

    def fail(*_: object) -> None:
        raise RuntimeError("the device failed")

    with monkeypatch.context() as patched:
        patched.setattr(engine._model, "logits", fail)
        with pytest.raises(RuntimeError, match="device failed"):
            engine.open(text_prompt(8))
    engine.open(text_prompt(8))


def test_a_closed_slot_holds_nothing_of_its_text(start: Start) -> None:
    engine = start("llama", num_slots=1)
    slot = engine.open(text_prompt(8, 9)).slot
    engine.extend([Extension.chain(slot, [10, 11, 12])])
    engine.crop(slot, 1)
    stores = stores_of(engine)
    assert all(store[slot].any() for store in stores)
    engine.close(slot)
    assert not any(store.any() for store in stores)


def test_logits_that_are_no_numbers_are_refused_and_do_not_reach_the_next_text(start: Start, saved: Saved) -> None:
    engine = start("llama", num_slots=1)
    embedding = engine._model.model.get_input_embeddings().weight
    before = embedding[20].clone()
    embedding[20] = float("nan")
    with pytest.raises(PromptRejected, match="no finite logits"):
        engine.open(text_prompt(8, 20, 9))
    embedding[20] = before
    logits = engine.open(text_prompt(8, 9)).logits
    np.testing.assert_allclose(logits, plain(saved("llama"))(text_prompt(8, 9), [])[-1], atol=1e-5)


def test_an_empty_batch_is_no_work(start: Start) -> None:
    assert start("llama").extend([]) == []


def test_a_quantised_draft_is_close_and_not_equal(start: Start, saved: Saved) -> None:
    engine = load_engine(str(saved("llama")), "draft", EngineSettings(quantize=True))
    prompt = text_prompt(*range(8, 28))
    expected = plain(saved("llama"))(prompt, [])[-1]
    got = engine.open(prompt).logits.numpy()
    assert 1e-3 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.1
