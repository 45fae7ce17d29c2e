"""The two model shapes, as configurations of the Hugging Face class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from training import tokenizer as tok
from training.features import NUM_MEL_BINS

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


class PatchStatistics(NamedTuple):
    """What three neighbouring log-mel frames look like in the train split; frame by frame, 128 bins each."""

    mean: torch.Tensor  # float32 [384]
    whitening: torch.Tensor  # float32 [384, 384], rows are principal components over their standard deviation


SHAPES: dict[ModelName, Shape] = {
    "draft": Shape(32, 1, 2, 96, 2, 4, 2),
    "target": Shape(64, 2, 4, 192, 4, 4, 2),
}
_FULL_CLIP_WINDOW = 1500  # half of the 3000 frames (30 s) that attend to each other; Qwen's own 100 cuts every 2 s


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
    return {
        "num_mel_bins": NUM_MEL_BINS,
        "encoder_layers": shape.tower_layers,
        "encoder_attention_heads": shape.tower_heads,
        "encoder_ffn_dim": 4 * shape.tower_width,
        "d_model": shape.tower_width,
        "output_dim": shape.text_width,
        "n_window": _FULL_CLIP_WINDOW,
        "max_source_positions": _FULL_CLIP_WINDOW,
    }


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
        "intermediate_size": 3 * shape.text_width,
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
def initialise(model: Qwen2_5OmniThinkerForConditionalGeneration, patches: PatchStatistics) -> None:
    """Draw weights at scales that suit small widths; start the first convolution as whitened principal components.

    The class's own 0.02 leaves the log-mel signal 25 times weaker than the position embedding that is added to it, and
    in random directions more than half of the variance is loudness, which slows everything else.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and not name.startswith("model.visual"):
            fan_in = 4.0 if "embed_tokens" in name else parameter.shape[1]
            parameter.normal_(0, fan_in**-0.5)
    tower = model.model.audio_tower
    width = len(tower.conv1.weight)
    signed = torch.cat([patches.whitening[: width // 2], -patches.whitening[: width // 2]])  # gelu keeps one sign
    tower.conv1.weight.copy_(signed.reshape(len(signed), 3, NUM_MEL_BINS).transpose(1, 2))
    tower.conv1.bias.copy_(-signed @ patches.mean)
    tower.conv2.weight.normal_(0, (2 / tower.conv2.weight[0].numel()) ** 0.5)
    for layers in (tower.layers, model.model.language_model.layers):
        for name, parameter in layers.named_parameters():
            if name.endswith(("out_proj.weight", "fc2.weight", "o_proj.weight", "down_proj.weight")):
                parameter /= (2 * len(layers)) ** 0.5
