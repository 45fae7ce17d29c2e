"""The audio tower of a Qwen2.5-Omni thinker: what it makes of log-mel, a token for about 40 ms."""

from __future__ import annotations

import numpy as np

from skydraft.engines.numpy.layers import LayerNorm, Linear, Part, gelu, softmax
from skydraft.engines.numpy.weights import Floats, Weights
from skydraft.text.checkpoint import ConfigTable

NAME = "audio_tower"
KERNEL = 3  # frames of a convolution
MAX_TIMESCALE = 10_000.0
HALF = np.float32(0.5)


class AudioTower:
    """Whisper's encoder on windows of 2 * n_window frames, and a projection of pairs of its rows.

    Args:
        config: the model's audio_config.
    """

    def __init__(self, config: ConfigTable, weights: Weights) -> None:
        num_mel_bins, size = int(config["num_mel_bins"]), int(config["d_model"])
        self._window = 2 * int(config["n_window"])
        self._convolutions = [
            _Convolution(weights, f"{NAME}.conv1", num_mel_bins, size, stride=1),
            _Convolution(weights, f"{NAME}.conv2", size, size, stride=2),
        ]
        self._positions = _sinusoids(int(config["max_source_positions"]), size)
        self._layers = [
            _EncoderLayer(config, weights, f"{NAME}.layers.{i}") for i in range(int(config["encoder_layers"]))
        ]
        self._norm = LayerNorm(weights, f"{NAME}.ln_post", size)
        self._project = Linear(weights, size, Part(f"{NAME}.proj", int(config["output_dim"])))

    def listen(self, features: Floats) -> Floats:
        """[num_mel_bins, num_frames] to [num_audio_tokens, output_dim]; rows do not depend on other sounds."""
        frames = features.T
        windows = [self._encode(frames[i : i + self._window]) for i in range(0, len(frames), self._window)]
        rows = np.concatenate(windows)
        pairs = rows[: len(rows) // 2 * 2].reshape(-1, 2, rows.shape[1])
        return self._project(self._norm((pairs[:, 0] + pairs[:, 1]) * HALF))

    def _encode(self, frames: Floats) -> Floats:
        """[num_frames, num_mel_bins] to [num_frames / 2, d_model]"""
        rows = frames
        for convolution in self._convolutions:
            rows = gelu(convolution(rows))
        rows += self._positions[: len(rows)]
        for layer in self._layers:
            layer(rows)
        return rows


class _Convolution:
    """A convolution of three frames, as a product of a matrix with each frame and its neighbours."""

    def __init__(self, weights: Weights, name: str, num_inputs: int, num_outputs: int, stride: int) -> None:
        kernel = weights.take(f"{name}.weight", num_outputs, num_inputs, KERNEL)
        self._matrix = np.ascontiguousarray(kernel.transpose(2, 1, 0)).reshape(KERNEL * num_inputs, num_outputs)
        self._bias = weights.take(f"{name}.bias", num_outputs)
        self._stride = stride

    def __call__(self, frames: Floats) -> Floats:
        padded = np.pad(frames, ((1, 1), (0, 0)))
        neighbours = [padded[i : i + len(frames) : self._stride] for i in range(KERNEL)]
        outputs = np.concatenate(neighbours, axis=1) @ self._matrix
        outputs += self._bias
        return outputs


class _EncoderLayer:
    """Attention of all rows to all, and a feed-forward network."""

    def __init__(self, config: ConfigTable, weights: Weights, name: str) -> None:
        size, inner = int(config["d_model"]), int(config["encoder_ffn_dim"])
        self._num_heads = int(config["encoder_attention_heads"])
        self._scale = np.float32((size // self._num_heads) ** -0.5)
        projections = (("q_proj", True), ("k_proj", False), ("v_proj", True))
        parts = (Part(f"{name}.self_attn.{part}", size, has_bias) for part, has_bias in projections)
        self._attention_norm = LayerNorm(weights, f"{name}.self_attn_layer_norm", size)
        self._queries_keys_values = Linear(weights, size, *parts)
        self._out = Linear(weights, size, Part(f"{name}.self_attn.out_proj", size))
        self._inner_norm = LayerNorm(weights, f"{name}.final_layer_norm", size)
        self._inner = Linear(weights, size, Part(f"{name}.fc1", inner))
        self._outer = Linear(weights, inner, Part(f"{name}.fc2", size))

    def __call__(self, rows: Floats) -> None:
        """Rows [num_rows, d_model], in place."""
        rows += self._attend(self._queries_keys_values(self._attention_norm(rows)))
        rows += self._outer(gelu(self._inner(self._inner_norm(rows))))

    def _attend(self, queries_keys_values: Floats) -> Floats:
        num_rows = len(queries_keys_values)
        by_head = queries_keys_values.reshape(num_rows, 3, self._num_heads, -1).transpose(1, 2, 0, 3)
        attended = [  # head by head: scores of all would be large for long sounds
            softmax((queries * self._scale) @ keys.T) @ values for queries, keys, values in by_head.swapaxes(0, 1)
        ]
        return self._out(np.concatenate(attended, axis=1))


def _sinusoids(length: int, size: int) -> Floats:
    """Whisper's position embeddings, [length, size]."""
    decay = -np.log(MAX_TIMESCALE) / (size // 2 - 1)
    angles = np.arange(length)[:, None] * np.exp(decay * np.arange(size // 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
