from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from skydraft.engines.log_mel import load_level, load_log_mel
from skydraft.models import embedded_path
from skydraft.text.checkpoint import find_checkpoint
from tests.engines.hugging_face import thinker
from training.architecture import ModelName
from training.captioner import Writer
from training.tokenizer import SPECIAL_TOKENS, prompt

NAMES = get_args(ModelName)
TOKENIZER = PreTrainedTokenizerFast.from_pretrained(embedded_path("draft"))


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> Qwen2_5OmniThinkerForConditionalGeneration:
    return thinker(embedded_path(request.param))


@pytest.mark.parametrize("name", NAMES)
def test_folder_holds_all_that_an_engine_loads(name: Literal["draft", "target"]) -> None:
    files = {path.name for path in embedded_path(name).iterdir()}
    assert files >= {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="teacher"):
        embedded_path("teacher")  # type: ignore[arg-type]


def test_draft_is_small_and_target_several_times_larger() -> None:
    sizes = {name: (embedded_path(name) / "model.safetensors").stat().st_size for name in NAMES}
    assert sizes["draft"] < 3_000_000
    assert 4 * sizes["draft"] < sizes["target"] < 16_000_000


def test_whispers_licence_lies_beside_what_is_whispers() -> None:
    licence = (embedded_path("target") / "LICENSE.whisper").read_text()
    assert "MIT License" in licence
    assert "OpenAI" in licence
    assert "LICENSE.whisper" in (embedded_path("target") / "README.md").read_text()


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_both_models_read_and_hear_alike(file: str) -> None:
    assert Path(embedded_path("draft") / file).read_bytes() == Path(embedded_path("target") / file).read_bytes()


def test_weights_are_stored_in_bf16() -> None:
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(embedded_path("draft"), dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    plain = text.replace("<|", "< |")
    ids = TOKENIZER.encode(plain, add_special_tokens=False)
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == plain


def test_special_tokens_are_single_ids() -> None:
    for token in SPECIAL_TOKENS:
        assert TOKENIZER.encode(token, add_special_tokens=False) == [TOKENIZER.convert_tokens_to_ids(token)]


@pytest.mark.parametrize("num_audio_tokens", [0, 1, 92])
def test_prompt_ids_equal_the_encoded_prompt(num_audio_tokens: int) -> None:
    assert Writer(TOKENIZER).prompt_ids(num_audio_tokens) == TOKENIZER.encode(prompt(num_audio_tokens))


def test_text_only_prompt_gives_finite_logits(model: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
    ids = torch.tensor([TOKENIZER.encode(prompt(0))])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert logits.shape == (1, ids.shape[1], len(TOKENIZER))
    assert logits.isfinite().all()


def levelled(samples: np.ndarray) -> np.ndarray:
    """What the model cards tell a user of plain Hugging Face code: float [1, 80, num_frames]."""
    extractor: Any = WhisperFeatureExtractor.from_pretrained(embedded_path("draft"))
    log_mel = extractor(samples, sampling_rate=16_000, padding="do_not_pad", return_tensors="np").input_features
    log_mel = log_mel + 1 - np.percentile(log_mel.max(axis=1), extractor.level_percentile)
    values: np.ndarray = np.rint(log_mel * extractor.steps_per_unit).clip(-127, 127) / extractor.steps_per_unit
    return values


def test_the_cards_lines_give_what_skydraft_gives() -> None:
    samples = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * np.float32(0.1)
    checkpoint = find_checkpoint("embedded", "draft")
    sound, level = load_log_mel(checkpoint)(samples), load_level(checkpoint)
    assert level is not None
    values = level.values(np.frombuffer(sound.data, np.int8).reshape(sound.shape))
    difference = np.abs(levelled(samples)[0] - values)
    assert difference.max() <= 1 / level.steps_per_unit  # where a value lies between two steps
    assert (difference > 0).mean() < 0.001


def test_caption_of_a_heard_tone_ends_by_itself(model: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
    tone = 0.1 * np.sin(2 * np.pi * 200 * np.arange(32_000) / 16_000).astype(np.float32)
    features = torch.from_numpy(levelled(tone)).float()
    ids = torch.tensor([TOKENIZER.encode(prompt(50))])
    written = model.generate(  # type: ignore[misc]  # its self is a protocol that its own models do not meet
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        input_features=features,
        feature_attention_mask=torch.ones(1, features.shape[2], dtype=torch.long),
        max_new_tokens=64,
    )
    assert written[0, -1] == TOKENIZER.convert_tokens_to_ids("<|im_end|>")
