"""The two model shapes, as configurations of the Hugging Face class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from training import tokenizer as tok
from training import whisper

ModelName = Literal["draft", "target"]


@dataclass(frozen=True)
class Shape:
    """Sizes of one model; widths in units, counts in layers and heads."""

    tower_width: int
    tower_layers: int
    tower_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    text_kv_heads: int
    text_ffn: int


class PatchStatistics(NamedTuple):
    """What three neighbouring log-mel frames look like in the train split; frame by frame, 80 bins each."""

    mean: torch.Tensor  # float32 [240]
    whitening: torch.Tensor  # float32 [240, 240], rows are principal components over their standard deviation


class HeardStatistics(NamedTuple):
    """What Whisper's layers give out over the train split, after the norm of each token."""

    mean: torch.Tensor  # float32 [512]
    deviation: torch.Tensor  # float32 [512]


SHAPES: dict[ModelName, Shape] = {
    "draft": Shape(128, 3, 4, 96, 2, 4, 2, 288),
    "target": Shape(whisper.WIDTH, whisper.NUM_LAYERS, whisper.NUM_HEADS, 128, 3, 4, 2, 352),
}


def configuration(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5OmniThinkerConfig:
    """The model configuration for a shape; the vision tower is as small as the class allows and never used."""
    ids = tokenizer.get_vocab()
    more: dict[str, Any] = {  # entries that any configuration takes
        "vision_start_token_id": ids[tok.VISION_BOS],
        "vision_end_token_id": ids[tok.VISION_EOS],
        "pad_token_id": ids[tok.END_OF_TEXT],
        "eos_token_id": ids[tok.TURN_END],
    }
    return Qwen2_5OmniThinkerConfig(
        audio_config=_audio(shape),
        vision_config=_vision(shape),
        text_config=_text(shape, len(tokenizer)),
        audio_token_index=ids[tok.AUDIO],
        image_token_index=ids[tok.IMAGE],
        video_token_index=ids[tok.VIDEO],
        audio_start_token_id=ids[tok.AUDIO_BOS],
        audio_end_token_id=ids[tok.AUDIO_EOS],
        user_token_id=tokenizer.encode("user", add_special_tokens=False)[0],
        tie_word_embeddings=False,
        **more,
    )


def build(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """A model with random weights in fp32."""
    return Qwen2_5OmniThinkerForConditionalGeneration(configuration(shape, tokenizer))


def _audio(shape: Shape) -> dict[str, Any]:
    return whisper.tower_configuration(shape.tower_width, shape.tower_layers, shape.tower_heads, shape.text_width)


def _vision(shape: Shape) -> dict[str, Any]:
    return {
        "depth": 1,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_heads": 1,
        "patch_size": 2,
        "temporal_patch_size": 1,
        "out_hidden_size": shape.text_width,
        "fullatt_block_indexes": [0],
    }


def _text(shape: Shape, vocab_size: int) -> dict[str, Any]:
    half_head = shape.text_width // shape.text_heads // 2
    return {
        "vocab_size": vocab_size,
        "hidden_size": shape.text_width,
        "intermediate_size": shape.text_ffn,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": shape.text_heads,
        "num_key_value_heads": shape.text_kv_heads,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [half_head // 2, half_head // 4, half_head - half_head // 2 - half_head // 4],
        },
        "tie_word_embeddings": False,
    }


@torch.no_grad()
def initialise(model: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
    """Draw weights at scales that suit small widths; the class's own 0.02 is far too small for them."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and not name.startswith("model.visual"):
            fan_in = 4.0 if "embed_tokens" in name else parameter.shape[1]
            parameter.normal_(0, fan_in**-0.5)
    tower = model.model.audio_tower
    tower.conv2.weight.normal_(0, (2 / tower.conv2.weight[0].numel()) ** 0.5)
    for layers in (tower.layers, model.model.language_model.layers):
        for name, parameter in layers.named_parameters():
            if name.endswith(("out_proj.weight", "fc2.weight", "o_proj.weight", "down_proj.weight")):
                parameter /= (2 * len(layers)) ** 0.5


@torch.no_grad()
def whiten(model: Qwen2_5OmniThinkerForConditionalGeneration, patches: PatchStatistics) -> None:
    """Start the first convolution as whitened principal components.

    In random directions more than half of the variance is loudness, which slows everything else.
    """
    conv = model.model.audio_tower.conv1
    half = patches.whitening[: len(conv.weight) // 2]
    signed = torch.cat([half, -half])  # gelu keeps one sign
    conv.weight.copy_(signed.reshape(len(signed), 3, whisper.NUM_MEL_BINS).transpose(1, 2))
    conv.bias.copy_(-signed @ patches.mean)


@torch.no_grad()
def put_whisper(
    model: Qwen2_5OmniThinkerForConditionalGeneration, weights: dict[str, torch.Tensor], heard: HeardStatistics
) -> None:
    """Begin the tower with Whisper's layers, frozen; its norm gives every channel a mean of 0 and a deviation of 1."""
    tower = model.model.audio_tower
    tower.requires_grad_(False)
    tower.load_state_dict(weights, strict=False)
    tower.ln_post.weight.copy_(1 / heard.deviation)
    tower.ln_post.bias.copy_(-heard.mean / heard.deviation)
    tower.proj.requires_grad_(True)
