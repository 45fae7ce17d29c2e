"""The embedded pair: a small draft model and a small target model that describe how a speaker sounds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def embedded_path(name: Literal["draft", "target"]) -> Path:
    """The folder of one model of the embedded pair.

    Returns:
        Path: a Hugging Face folder of `Qwen2_5OmniThinkerForConditionalGeneration`: weights in bf16, configuration,
        tokenizer, audio feature extractor and model card.
    Raises:
        ValueError: no such model is embedded.
    """
    if name not in ("draft", "target"):
        raise ValueError(f"unknown embedded model {name!r}; expected 'draft' or 'target'")
    return Path(__file__).parent / name
