"""Hugging Face without a cache: what engines are compared with."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skydraft.core import Prompt
from skydraft.engines.prompt_checks import text_ids
from tests.engines.operations import FromScratch

if TYPE_CHECKING:
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration


@lru_cache
def hugging_face(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    return model.eval()


def thinker(folder: Path) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """A model that hears, in float32."""
    import torch
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def plain(folder: Path) -> FromScratch:
    """The model of a folder on the whole text."""
    import torch

    model = hugging_face(folder)

    def from_scratch(prompt: Prompt, token_ids: list[int]) -> np.ndarray:
        before = text_ids(prompt)
        with torch.no_grad():
            rows: np.ndarray = model(torch.tensor([before + token_ids])).logits[0, len(before) - 1 :].numpy()
        return rows

    return from_scratch
