"""Whisper base's convolutions and first layers as the audio tower of a Qwen2.5-Omni model, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen2_5OmniAudioEncoderConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder

WIDTH, NUM_HEADS, NUM_LAYERS = 512, 8, 2
NUM_MEL_BINS = 80
LONGEST_WINDOW = 1500  # half of the 3000 frames (30 s) that attend to each other; Qwen's own 100 cuts every 2 s
_PREFIX = "model.encoder."  # of the names in openai/whisper-base


def read_weights(source: str) -> dict[str, Tensor]:
    """The tensors that the tower begins with, rounded to bf16 as they ship and in float32.

    Args:
        source: a folder with model.safetensors, or a model of Hugging Face such as openai/whisper-base.
    """
    folder = Path(source)
    path = folder / "model.safetensors" if folder.is_dir() else Path(hf_hub_download(source, "model.safetensors"))
    layers = tuple(f"layers.{index}." for index in range(NUM_LAYERS))
    named = {name.removeprefix(_PREFIX): weight for name, weight in load_file(path).items()}
    return {
        name: weight.to(torch.bfloat16).float()
        for name, weight in named.items()
        if name.startswith(("conv1.", "conv2.", *layers))
    }


def tower_configuration(
    width: int = WIDTH, num_layers: int = NUM_LAYERS, num_heads: int = NUM_HEADS, output_width: int = WIDTH
) -> dict[str, Any]:
    """The audio tower's entries of a model configuration."""
    return {
        "num_mel_bins": NUM_MEL_BINS,
        "encoder_layers": num_layers,
        "encoder_attention_heads": num_heads,
        "encoder_ffn_dim": 4 * width,
        "d_model": width,
        "output_dim": output_width,
        "n_window": LONGEST_WINDOW,
        "max_source_positions": LONGEST_WINDOW,
    }


class FrozenTower:
    """What the tower hears, before the norm and the projector that are trained here."""

    def __init__(self, source: str) -> None:
        self._tower = Qwen2_5OmniAudioEncoder(Qwen2_5OmniAudioEncoderConfig(**tower_configuration()))
        self._tower.eval()  # type: ignore[no-untyped-call]
        missing, unexpected = self._tower.load_state_dict(read_weights(source), strict=False)
        assert not unexpected
        assert all(name.startswith(("ln_post", "proj", "audio_bos")) for name in missing)
        self._tower.ln_post, self._tower.proj = nn.Identity(), nn.Identity()  # type: ignore[assignment]

    @torch.no_grad()
    def __call__(self, mel: Tensor) -> Tensor:
        """Listen to one recording.

        Args:
            mel: float32 [num_frames, 80], levelled.
        Returns:
            float32 [num_tokens, 512], 25 tokens a second.
        """
        heard: Tensor = self._tower(mel.T, feature_lens=torch.tensor([len(mel)])).last_hidden_state
        return heard
