"""Hugging Face causal language models."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from skydraft.core import Prompt
from skydraft.engines.huggingface.kv_cache import ATTENTION_NAME, BatchPlan, SlotCache
from skydraft.engines.huggingface.slot_engine import Inputs, SlotEngine, start_engine
from skydraft.engines.huggingface.weights import (
    load_weights,
    require_plain_layers,
)
from skydraft.engines.prompt_checks import reject_tensors, text_ids
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ModelLoadError
from skydraft.text.checkpoint import Checkpoint, custom_code, is_custom, require_rollback
from skydraft.text.tokenizer import FolderTokenizer
from skydraft.text.vocabulary import Vocabulary


class CausalModel:
    """A causal language model as slot engines use it.

    Args:
        model: a Hugging Face model that writes text.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.num_layers = int(model.config.get_text_config().num_hidden_layers)
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self._keeps_rows = "logits_to_keep" in inspect.signature(model.forward).parameters

    def token_ids(self, prompt: Prompt) -> list[int]:
        reject_tensors(prompt, self.vocabulary.name)
        return text_ids(prompt)

    def embeddings(self, prompt: Prompt, token_ids: list[int]) -> None:
        return None

    def logits(self, inputs: Inputs, plan: BatchPlan, cache: SlotCache) -> Tensor:
        # The head has as many rows as the vocabulary: a prompt's other rows must not go through it.
        kept = {"logits_to_keep": plan.rows} if self._keeps_rows and plan.rows is not None else {}
        output = self.model(
            input_ids=inputs.token_ids,
            position_ids=plan.positions,
            past_key_values=cache,
            use_cache=True,
            plan=plan,
            **kept,
        )
        logits: Tensor = output.logits[0]
        return (logits if kept or plan.rows is None else logits[plan.rows]).float()

    def plain_logits(self, token_ids: Tensor) -> Tensor:
        return self.model(input_ids=token_ids, use_cache=False).logits[0].float()  # type: ignore[no-any-return]

    def use_slots(self) -> None:
        self.model.set_attn_implementation(ATTENTION_NAME)


def load_causal(checkpoint: Checkpoint, settings: EngineSettings) -> SlotEngine:
    """Load a causal language model from a folder.

    Raises:
        ModelLoadError: it is no such model, or cannot be loaded or run.
    """
    if not set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()).intersection(checkpoint.architectures):
        if is_custom(checkpoint):
            raise custom_code(checkpoint)
        stated = ", ".join(checkpoint.architectures) or "nothing"
        raise ModelLoadError(
            f"{checkpoint.name} is no causal language model that transformers knows (its config.json names {stated} as "
            "architectures)"
        )
    require_rollback(checkpoint)
    limits = settings.limits(checkpoint.name, *checkpoint.longest_text)
    vocabulary = FolderTokenizer(checkpoint).vocabulary
    model = load_weights(AutoModelForCausalLM, checkpoint, settings)
    require_attention_interface(checkpoint, model)
    require_plain_layers(checkpoint, model.config.get_text_config())
    return start_engine(CausalModel(model, vocabulary), limits, settings)


def require_attention_interface(checkpoint: Checkpoint, model: Any) -> None:
    """Refuse models that do not let their attention be replaced.

    Raises:
        ModelLoadError: naming the class.
    """
    if not getattr(model, "_supports_attention_backend", False):
        raise ModelLoadError(
            f"{checkpoint.name} is a {type(model).__name__}, which does not take an attention function from outside: "
            "skydraft cannot give it a KV cache of slots"
        )
