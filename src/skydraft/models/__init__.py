"""The embedded pair: a small draft and a small target that caption how a speaker sounds."""

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
        raise ValueError(f"no embedded model is called {name!r}; there are 'draft' and 'target'")
    return Path(__file__).parent / name
