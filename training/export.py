"""Writes a trained model as the folder that ships."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from training.features import LEVEL
from training.whisper import NUM_MEL_BINS


def export(model: Qwen2_5OmniThinkerForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write bf16 weights, configurations, tokenizer and feature extractor; the model in memory is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    shipped = type(model)(model.config)
    shipped.load_state_dict(model.state_dict())
    shipped.to(torch.bfloat16)  # type: ignore[arg-type]  # its decorator's annotation forgets self
    shipped.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=64,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    shipped.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    extractor = WhisperFeatureExtractor(  # type: ignore[no-untyped-call]
        feature_size=NUM_MEL_BINS, level_percentile=LEVEL.percentile, steps_per_unit=LEVEL.steps_per_unit
    )
    extractor.save_pretrained(folder)
