from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from skydraft.models import embedded_path
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
    assert sizes["target"] > 4 * sizes["draft"]


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


def test_caption_of_a_heard_tone_ends_by_itself(model: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
    extractor = WhisperFeatureExtractor.from_pretrained(embedded_path("draft"))
    tone = 0.1 * torch.sin(2 * torch.pi * 200 * torch.arange(32_000) / 16_000).numpy()
    features = extractor(tone, sampling_rate=16_000, padding="do_not_pad", return_tensors="pt").input_features
    ids = torch.tensor([TOKENIZER.encode(prompt(50))])
    written = model.generate(  # type: ignore[misc]  # its self is a protocol that its own models do not meet
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        input_features=features,
        feature_attention_mask=torch.ones(1, features.shape[2], dtype=torch.long),
        max_new_tokens=64,
    )
    assert written[0, -1] == TOKENIZER.convert_tokens_to_ids("<|im_end|>")
