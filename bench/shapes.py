"""Models with the true shapes of published ones and random weights, made where they run: nothing is downloaded.

A forward pass takes as long with random weights as with trained ones. The numbers are those of the published
config.json files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import torch
from transformers import (
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from skydraft.engines.base import EngineLimits
from skydraft.engines.huggingface.causal import CausalModel
from skydraft.engines.huggingface.omni import OmniModel
from skydraft.engines.huggingface.slot_engine import DecoderModel, SlotEngine, start_engine
from skydraft.engines.huggingface.weights import memory_guard
from skydraft.engines.settings import EngineSettings
from skydraft.text.vocabulary import Vocabulary

NUM_TOKENS = 151_665  # of the tokenizer; the other rows of the logits are padding

_DECODER: Final[dict[str, Any]] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152_064,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
}
QWEN: Final[dict[str, Any]] = {
    **_DECODER,
    "max_position_embeddings": 131_072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}
OMNI_TEXT: Final[dict[str, Any]] = {
    **_DECODER,
    "max_position_embeddings": 32_768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
}
OMNI_AUDIO: Final[dict[str, Any]] = {
    "num_mel_bins": 128,
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "max_source_positions": 1500,
    "n_window": 100,
    "output_dim": 3584,
}
# The engine shows a thinker no images and takes this tower out; it is made small so that it costs no time.
OMNI_VISION: Final[dict[str, Any]] = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "fullatt_block_indexes": [0],
}
OMNI_IDS: Final[dict[str, Any]] = {
    "audio_token_index": 151_646,
    "audio_start_token_id": 151_647,
    "audio_end_token_id": 151_648,
}

_TINY: Final[dict[str, Any]] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
_TINY_AUDIO: Final[dict[str, Any]] = {
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "output_dim": 64,
}
_TINY_MROPE: Final[dict[str, Any]] = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [4, 2, 2]}


class Shaped(NamedTuple):
    """An engine on a model of a published shape.

    config: of its language model, as it was made.
    weight_bytes: that every forward pass reads: of the decoder and the head, without embeddings and towers.
    num_weights: of the same, one multiplication and one addition each for a token.
    kv_bytes: that one token of one text takes in the KV cache.
    """

    engine: SlotEngine
    config: Mapping[str, Any]
    weight_bytes: int
    num_weights: int
    kv_bytes: int


class Size(NamedTuple):
    """tiny: a few thousand weights in place of the true shape, to try a bench out."""

    device: str
    dtype: str
    limits: EngineLimits
    tiny: bool = False


def make_qwen(size: Size) -> Shaped:
    """Qwen2.5-7B."""
    config = {**QWEN, **(_TINY if size.tiny else {})}
    return _start(
        "Qwen2.5-7B (random weights)",
        size,
        config,
        lambda dtype: Qwen2ForCausalLM._from_config(Qwen2Config(**config), dtype=dtype),  # type: ignore[no-untyped-call]
        CausalModel,
    )


def make_omni(size: Size) -> Shaped:
    """The thinker of Qwen2.5-Omni-7B, with its audio tower."""
    text = {**OMNI_TEXT, **({**_TINY, "rope_parameters": _TINY_MROPE} if size.tiny else {})}
    audio = {**OMNI_AUDIO, **(_TINY_AUDIO if size.tiny else {})}
    vision = {**OMNI_VISION, "out_hidden_size": text["hidden_size"]}
    # In the tiny vocabulary the tokens around sound have no place; nothing here listens.
    config = Qwen2_5OmniThinkerConfig(audio_config=audio, vision_config=vision, text_config=text, **OMNI_IDS)
    model_class = Qwen2_5OmniThinkerForConditionalGeneration

    def make(dtype: torch.dtype) -> Any:
        model = model_class._from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
        model.model.visual = None
        return model

    return _start("Qwen2.5-Omni-7B thinker (random weights)", size, text, make, OmniModel)


MAKERS: Mapping[str, Callable[[Size], Shaped]] = {"qwen2.5-7b": make_qwen, "qwen2.5-omni-7b-thinker": make_omni}


def _start(
    name: str,
    size: Size,
    config: Mapping[str, Any],
    make: Callable[[torch.dtype], Any],
    adapt: Callable[[Any, Vocabulary], DecoderModel],
) -> Shaped:
    """Make a model on its device and start an engine on it.

    Raises:
        ModelLoadError: it does not fit into memory.
    """
    device = torch.device(size.device)
    torch.manual_seed(0)
    with memory_guard(name, device), device:
        model = make(getattr(torch, size.dtype)).eval().requires_grad_(False)
    vocab_size = config["vocab_size"]
    vocabulary = Vocabulary(name, tuple(map(str, range(min(NUM_TOKENS, vocab_size)))), vocab_size)
    settings = EngineSettings(device=size.device, dtype=size.dtype, fast_math=True)
    engine = start_engine(adapt(model, vocabulary), size.limits, settings)
    read = _read_weights(model)
    return Shaped(
        engine=engine,
        config=config,
        weight_bytes=sum(weight.numel() * weight.element_size() for weight in read),
        num_weights=sum(weight.numel() for weight in read),
        kv_bytes=engine.cache_bytes // (size.limits.num_slots * size.limits.max_length),
    )


def _read_weights(model: Any) -> list[torch.nn.Parameter]:
    """What a forward pass over text reads whole."""
    parts = (getattr(model.model, "language_model", model.model).layers, model.lm_head)
    return [weight for part in parts for weight in part.parameters()]
