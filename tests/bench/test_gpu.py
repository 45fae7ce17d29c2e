from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import (
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from bench import gpu, shapes
from skydraft.engines.base import EngineLimits

NUM_WEIGHTS = 7_615_616_512  # of Qwen/Qwen2.5-7B, as published


def num_weights(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_the_shape_of_the_text_model_is_the_published_one() -> None:
    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(**shapes.QWEN))
    assert num_weights(model) == NUM_WEIGHTS


def test_the_thinker_has_the_same_decoder_and_a_true_audio_tower() -> None:
    vision: dict[str, Any] = {**shapes.OMNI_VISION, "out_hidden_size": 3584}
    parts: dict[str, Any] = {
        "text_config": shapes.OMNI_TEXT,
        "audio_config": shapes.OMNI_AUDIO,
        "vision_config": vision,
    }
    with torch.device("meta"):
        model = Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig(**parts, **shapes.OMNI_IDS))
    assert num_weights(model.model.language_model) + num_weights(model.lm_head) == NUM_WEIGHTS
    assert 0.6e9 < num_weights(model.model.audio_tower) < 0.7e9


def test_it_can_be_tried_out_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cpu", "--tiny", "--rounds", "2", "--context", "8", "--json"]) == 0
    claims = {claim["claim"]: claim["value"] for claim in map(json.loads, capsys.readouterr().out.splitlines())}
    for model in shapes.MAKERS:
        assert claims[f"verify_ms.{model}.1.0"] > 0
        assert 0 < claims[f"bandwidth_share.{model}.1.0"] < 1


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_accelerator", lambda: None)
    assert gpu.main([]) == 1
    assert "no GPU was found for --device cuda" in capsys.readouterr().err


def test_a_round_gives_what_is_accepted_and_the_targets_own_token() -> None:
    assert gpu.expected_tokens(0, 0.7) == 1
    assert gpu.expected_tokens(3, 1.0) == 4
    assert gpu.expected_tokens(2, 0.5) == pytest.approx(1 + 0.5 + 0.25)


def test_what_a_pass_reads_is_counted_without_embeddings() -> None:
    size = shapes.Size("cpu", "float32", EngineLimits(2, 16), tiny=True)
    made = shapes.make_qwen(size)
    hidden, inner, vocab, kv = 64, 96, 512, 32
    attention = 2 * hidden * hidden + hidden + 2 * (hidden * kv + kv)
    layer = attention + 3 * hidden * inner + 2 * hidden
    assert made.num_weights == 2 * layer + vocab * hidden
    assert made.weight_bytes == 4 * made.num_weights
    assert made.kv_bytes == 2 * 2 * kv * 4
