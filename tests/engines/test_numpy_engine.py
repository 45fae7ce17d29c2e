"""Thinkers that NumPy runs: the logits of Hugging Face, and rows with the same bits in any company."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from msgspec.structs import replace
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from skydraft.core import Prompt, TensorSegment, TokenSegment
from skydraft.engines.load import load_ears, load_engine, load_tokenizer
from skydraft.engines.numpy.audio_tower import AudioTower
from skydraft.engines.numpy.engine import NumpyEngine
from skydraft.engines.self_test import TextLengths, compare_rows, hold_to_promise
from skydraft.engines.settings import EngineSettings
from skydraft.errors import CacheOverflow, ConfigError, ModelLoadError, PromptRejected
from skydraft.models import embedded_path
from skydraft.text.checkpoint import Role
from tests.engines import contract
from tests.engines.folders import AUDIO_ID, change_config
from tests.engines.hugging_face import thinker
from tests.engines.operations import RandomOperations, text_prompt
from tests.engines.test_omni import from_scratch, heard, log_mel

SEVERAL_PAGES = TextLengths(prompt=150, text=80, blocks=((3, 9), (9, 36), (80, 80)))

Saved = Callable[[str], Path]
Start = Callable[..., NumpyEngine]


@pytest.fixture
def start(saved: Saved) -> Start:
    """Load the tiny thinker: start(num_slots=4)."""

    def load(folder: Path | None = None, **settings: object) -> NumpyEngine:
        name = f"numpy:{folder or saved('omni')}"
        engine = load_engine(name, "target", replace(EngineSettings(), **settings))
        assert isinstance(engine, NumpyEngine)
        return engine

    return load


@pytest.fixture(scope="module")
def model(saved: Saved) -> Qwen2_5OmniThinkerForConditionalGeneration:
    return thinker(saved("omni"))


@pytest.mark.parametrize("role", ["draft", "target"])
@pytest.mark.parametrize("num_samples", [20_000, 80_123])
def test_the_embedded_pair_writes_as_with_pytorch(role: Role, num_samples: int) -> None:
    tokenizer, hear = load_tokenizer("embedded", role), load_ears("embedded", role)
    assert hear is not None
    samples = np.random.default_rng(0).standard_normal(num_samples).astype(np.float32) * np.float32(0.1)
    start, end, *asked = (tokenizer.encode(text) for text in ("<|audio_bos|>", "<|audio_eos|>", "Describe how"))
    prompt = Prompt((TokenSegment(start), hear(samples), TokenSegment((*end, *asked[0]))))
    logits = load_engine("embedded", role).open(prompt).logits
    expected = load_engine(str(embedded_path(role)), role).open(prompt).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


# Around the tower's window of 40 frames, and around the roundings of its two strides.
@pytest.mark.parametrize("num_frames", [3, 4, 5, 6, 7, 39, 40, 41, 42, 43, 81, 130])
def test_logits_for_sound_equal_hugging_face(
    start: Start, model: Qwen2_5OmniThinkerForConditionalGeneration, num_frames: int
) -> None:
    prompt = heard(log_mel(num_frames))
    np.testing.assert_allclose(
        start(prefill_chunk=7).open(prompt).logits, from_scratch(model, prompt, [])[-1], atol=1e-5
    )


def test_levelled_features_are_heard_too(start: Start, saved: Saved) -> None:
    steps = np.random.default_rng(0).integers(-96, 96, (16, 30)).astype(np.int8)
    values = (steps / 64).astype(np.float32)
    levelled = heard(TensorSegment("levelled_log_mel", "int8", steps.shape, steps.tobytes()))
    plain = heard(TensorSegment("log_mel", "float32", values.shape, values.tobytes()))
    heard_levelled = start(saved("levelled_omni")).open(levelled).logits
    np.testing.assert_array_equal(heard_levelled, start().open(plain).logits)


@pytest.mark.parametrize(("seed", "fast_math"), [(1, False), (2, True), (3, False)])
def test_texts_with_and_without_sound_through_random_operations(
    start: Start, model: Qwen2_5OmniThinkerForConditionalGeneration, seed: int, fast_math: bool
) -> None:
    def make_prompt(random: np.random.Generator) -> Prompt:
        instruction = tuple(int(i) for i in random.integers(8, 64, random.integers(1, 6)))
        if random.random() < 0.3:
            return text_prompt(*instruction)
        return heard(log_mel(int(random.integers(3, 90)), int(random.integers(99))), instruction)

    engine, plain = start(num_slots=4, fast_math=fast_math), partial(from_scratch, model)
    RandomOperations(engine, plain, seed, vocab_size=64, make_prompt=make_prompt).run(60)


@pytest.mark.parametrize("check", contract.OF_SUBTREES)
def test_a_subtree_may_be_kept(
    start: Start, model: Qwen2_5OmniThinkerForConditionalGeneration, check: contract.Check
) -> None:
    check(start(), partial(from_scratch, model), 1e-5)


def test_an_overflow_leaves_all_slots_as_they_were(
    start: Start, model: Qwen2_5OmniThinkerForConditionalGeneration
) -> None:
    engine = start(num_slots=2, max_length=6)
    contract.check_that_an_overflow_changes_no_slot(engine, partial(from_scratch, model), 1e-5)


def test_a_prompt_begins_with_what_another_slot_has_heard_and_the_sound_is_not_heard_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, sound = start(num_slots=2), log_mel(30)
    prompt, longer = heard(sound, (9, 10)), heard(sound, (9, 10, 11, 12))
    num_reused = engine.measure(prompt) - 1
    contract.check_that_a_prompt_begins_with_what_another_slot_has_read(engine, prompt, longer, num_reused)
    slot = engine.open(prompt).slot
    within, after = (engine.copy_out(slot, 0, end) for end in (5, num_reused))
    monkeypatch.setattr(AudioTower, "listen", lambda *of: pytest.fail("it listens"))
    engine.close(engine.reserve(longer, [after]))
    with pytest.raises(pytest.fail.Exception, match="it listens"):
        engine.reserve(longer, [within])


def test_prompts_without_tokens_or_beyond_the_vocabulary_are_rejected_and_take_no_slot(start: Start) -> None:
    engine = start(num_slots=1)
    contract.check_that_rejected_prompts_take_no_slot(engine)
    with pytest.raises(PromptRejected, match="stands for sound"):
        engine.open(text_prompt(9, AUDIO_ID))


def test_a_sound_that_does_not_fit_is_refused_before_it_is_listened_to(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start()
    monkeypatch.setattr(engine._tower, "listen", lambda _: pytest.fail("was listened to"))
    with pytest.raises(CacheOverflow, match="prompt has 105 tokens"):
        engine.open(heard(log_mel(400)))


def test_a_prompt_after_which_nothing_is_a_number_is_refused_and_its_slot_wiped(start: Start) -> None:
    engine = start(num_slots=1)
    expected = engine.open(text_prompt(9)).logits
    engine.close(0)
    engine._text_model._embeddings[20] = np.nan
    with pytest.raises(PromptRejected, match="gives no finite logits"):
        engine.open(text_prompt(9, 20))
    np.testing.assert_array_equal(engine.open(text_prompt(9)).logits, expected)
    assert engine.extend([]) == []


# Rows


@pytest.mark.parametrize("num_threads", [1, 2])
def test_the_embedded_target_gives_the_same_bits_in_any_company(num_threads: int) -> None:
    engine = load_engine("embedded", "target", EngineSettings(num_slots=2, num_threads=num_threads))
    assert engine.row_promise.is_invariant
    found = compare_rows(engine, SEVERAL_PAGES)
    assert (found.ways, found.gap_change, found.largest) == ((), 0.0, 0.0)
    assert found.num_rows > 150


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_tiny_thinker_does_too(start: Start, num_threads: int) -> None:
    assert compare_rows(start(num_slots=2, num_threads=num_threads)).ways == ()


def test_sound_is_no_exception(start: Start) -> None:
    prompt = heard(log_mel(90))
    engine = start(num_slots=2)
    alone = engine.open(prompt).logits
    beside = start(num_slots=2, prefill_chunk=3)
    beside.open(heard(log_mel(61, seed=1)))
    np.testing.assert_array_equal(beside.open(prompt).logits, alone)


def test_products_of_several_rows_promise_nothing_and_are_measured() -> None:
    engine = load_engine("embedded", "target", EngineSettings(num_slots=2, max_length=128, fast_math=True))
    assert not engine.row_promise.is_invariant
    found = hold_to_promise(engine)
    assert found is not None
    assert found.largest < 1e-3
    assert engine.row_promise.gap_change == found.gap_change
    assert not load_engine("embedded", "draft").row_promise.is_invariant


# What is refused


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"device": "cuda"}, "device is 'cuda' and NumPy"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16' and NumPy"),
        ({"quantize": True}, "quantize is True and NumPy"),
    ],
)
def test_what_numpy_does_not_do_is_refused_with_the_name_that_pytorch_runs(
    settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=f"{reason}.*by the name {embedded_path('draft')}"):
        load_engine("embedded", "draft", replace(EngineSettings(), **settings))


@pytest.fixture
def folder(saved: Saved, tmp_path: Path) -> Path:
    """A copy of the tiny thinker, to be spoilt."""
    for path in saved("omni").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("part", "changes", "reason"),
    [
        (None, {"model_type": "qwen2_5_omni_talker"}, "model_type 'qwen2_5_omni_talker'"),
        ("text_config", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("text_config", {"use_sliding_window": True}, "use_sliding_window True"),
        ("text_config", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
        ("text_config", {"layer_types": ["mamba", "mamba"]}, "layers of the kind mamba"),
        ("text_config", {"num_attention_heads": "four"}, "does not say what NumPy must know"),
        ("text_config", {"hidden_size": 64}, r"model.embed_tokens.weight is \[64, 32\] and should be \[64, 64\]"),
        ("audio_config", {"activation_function": "relu"}, "activation_function 'relu'"),
        ("audio_config", {"encoder_layers": 3}, r"layers.2.*is missing and should be \[16\]"),
    ],
)
def test_models_that_are_computed_in_another_way_are_refused(
    start: Start, folder: Path, part: str | None, changes: dict[str, Any], reason: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    change_config(folder, **(changes if part is None else {part: {**config[part], **changes}}))
    with pytest.raises(ModelLoadError, match=reason):
        start(folder)


def test_a_slot_that_does_not_fit_into_memory_is_refused(start: Start, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    change_config(folder, text_config={**config["text_config"], "max_position_embeddings": 2**40})
    with pytest.raises(ModelLoadError, match="does not fit into memory"):
        start(folder, num_slots=2**20, max_length=2**40)


def test_damaged_weights_are_refused(start: Start, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match="cannot be loaded"):
        start(folder)


def test_whole_numbers_are_no_weights(start: Start, folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = safetensors.numpy.load_file(path)
    weights["model.norm.weight"] = weights["model.norm.weight"].astype(np.int8)
    safetensors.numpy.save_file(weights, path)
    with pytest.raises(ModelLoadError, match="has weights in I8"):
        start(folder)


def test_embeddings_may_be_the_head(start: Start, folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = safetensors.numpy.load_file(path)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    safetensors.numpy.save_file(weights, path)
    expected = start(folder).open(text_prompt(9, 10)).logits
    del weights["lm_head.weight"]
    safetensors.numpy.save_file({name: weight.astype(np.float16) for name, weight in weights.items()}, path)
    change_config(folder, tie_word_embeddings=True)
    np.testing.assert_allclose(start(folder).open(text_prompt(9, 10)).logits, expected, atol=0.05)
