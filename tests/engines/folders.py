"""Makes tiny model folders with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Config,
    Qwen3Config,
)

VOCAB_SIZE = 64
MAX_LENGTH = 64
WINDOW = 32
SPECIAL = ("<pad>", "<end>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
AUDIO_ID, AUDIO_BOS_ID, AUDIO_EOS_ID = 2, 3, 4
NUM_MEL_BINS = 16

_TEXT: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_LENGTH,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.3,  # large: what a token must not see would show
}

_LONG: dict[str, Any] = {"max_position_embeddings": 128}


def save_llama(folder: Path) -> Path:
    """Every head has keys of its own."""
    return save_text_model(LlamaConfig(**_TEXT, num_key_value_heads=4), folder)


def save_qwen2(folder: Path) -> Path:
    """Four heads share a key head."""
    return save_text_model(Qwen2Config(**_TEXT, num_key_value_heads=1), folder)


def save_deep(folder: Path) -> Path:
    """Wide and deep enough for rounding to show: four layers of 256, four heads to a key head, biases."""
    sizes: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
    }
    config = Qwen2Config(
        **{**_TEXT, **sizes, "vocab_size": 512, "max_position_embeddings": 1024}, num_key_value_heads=2
    )
    return save_text_model(config, folder)


def save_gemma3(folder: Path) -> Path:
    """Two layers see the last 32 positions, a third sees all; the two kinds turn their keys differently."""
    config = Gemma3TextConfig(
        **{**_TEXT, **_LONG, "num_hidden_layers": 3},
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )
    return save_text_model(config, folder)


def save_gemma2(folder: Path) -> Path:
    """As Gemma 3, with scores that are squeezed into a range."""
    config = Gemma2Config(
        **{**_TEXT, **_LONG},
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=16,
        sliding_window=WINDOW,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=20.0,
        layer_types=["sliding_attention", "full_attention"],
    )
    return save_text_model(config, folder)


def save_mistral(folder: Path) -> Path:
    """Every layer sees the last 32 positions."""
    config = MistralConfig(**{**_TEXT, **_LONG}, num_key_value_heads=2, head_dim=8, sliding_window=WINDOW)
    return save_text_model(config, folder)


def save_phi3(folder: Path) -> Path:
    """Every layer sees the last 32 positions; queries, keys and values come from one matrix."""
    config = Phi3Config(**{**_TEXT, **_LONG}, num_key_value_heads=2, sliding_window=WINDOW, pad_token_id=0)
    return save_text_model(config, folder)


def save_cohere2(folder: Path) -> Path:
    """Layers with a window turn their keys, the one without does not."""
    config = Cohere2Config(
        **{**_TEXT, **_LONG, "num_hidden_layers": 3},
        num_key_value_heads=2,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )
    return save_text_model(config, folder)


def save_windowed(folder: Path) -> Path:
    """A Qwen3 whose second layer has a window."""
    config = Qwen3Config(
        **{**_TEXT, **_LONG},
        num_key_value_heads=2,
        head_dim=8,
        use_sliding_window=True,
        sliding_window=WINDOW,
        max_window_layers=1,
    )
    return save_text_model(config, folder)


def save_windowless(folder: Path) -> Path:
    """A Qwen2 that names a window and does not use it."""
    config = Qwen2Config(**{**_TEXT, **_LONG}, num_key_value_heads=2, use_sliding_window=False, sliding_window=WINDOW)
    return save_text_model(config, folder)


def save_omni(folder: Path) -> Path:
    """A thinker that hears 16 bands in chunks of 40 frames."""
    config = Qwen2_5OmniThinkerConfig(
        audio_config={
            "num_mel_bins": NUM_MEL_BINS,
            "d_model": 16,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "max_source_positions": 20,
            "n_window": 20,
            "output_dim": 32,
            "initializer_range": 0.3,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 4,
            "fullatt_block_indexes": [0],
        },
        text_config={
            **_TEXT,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
        },
        audio_token_index=AUDIO_ID,
        audio_start_token_id=AUDIO_BOS_ID,
        audio_end_token_id=AUDIO_EOS_ID,
        image_token_index=5,
        video_token_index=6,
        vision_start_token_id=7,  # type: ignore[call-arg]  # one more of its entries, as any config takes
    )
    return _save(Qwen2_5OmniThinkerForConditionalGeneration(config), folder)


def save_levelled_omni(folder: Path) -> Path:
    """The same weights as of save_omni after the same seed; its model hears levelled log-mel in steps of 1/64."""
    save_omni(folder)
    stated = {"feature_size": NUM_MEL_BINS, "level_percentile": 98.0, "steps_per_unit": 64}
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    return folder


def word_tokenizer(num_tokens: int = VOCAB_SIZE) -> tokenizers.Tokenizer:
    """SPECIAL, then w5, w6 and so on."""
    words = [*SPECIAL, *(f"w{index}" for index in range(len(SPECIAL), num_tokens))]
    tokenizer = tokenizers.Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, "<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def change_config(folder: Path, **changes: Any) -> None:
    """Overwrite entries of a config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def save_text_model(config: PreTrainedConfig, folder: Path) -> Path:
    """A language model of this shape."""
    return _save(AutoModelForCausalLM.from_config(config), folder)  # type: ignore[no-untyped-call]


def _save(model: PreTrainedModel, folder: Path) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases and norms are made as 0 and 1, which would hide mistakes
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    word_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1]}))
    return folder
