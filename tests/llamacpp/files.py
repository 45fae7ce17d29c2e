"""Writes GGUF files: tiny llamas with random weights, or with those of a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from gguf import GGMLQuantizationType, TokenType, quants

Weights = Mapping[str, np.ndarray]  # Hugging Face's names

CONFIG: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
# Deep enough to make differences of the last bit large, and wide enough for blocks of 256 weights, as K-quants have.
MINIATURE = {
    **CONFIG,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "max_position_embeddings": 2048,
}
EXPERTS = {**MINIATURE, "num_experts": 8, "num_experts_used": 2}
SPECIAL = ("<unk>", "<s>", "</s>")
CHAT = "{% for message in messages %}{{ bos_token }}[{{ message.content }}]{% endfor %}"

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.router": "ffn_gate_inp",
    "mlp.gate_experts": "ffn_gate_exps",
    "mlp.up_experts": "ffn_up_exps",
    "mlp.down_experts": "ffn_down_exps",
}


class Tokens(NamedTuple):
    """A vocabulary as a GGUF file has it.

    kind: "llama" for SentencePiece, "gpt2" for bytes. scores: of SentencePiece; merges: of bytes.
    """

    kind: str
    pieces: list[str]
    types: list[TokenType]
    scores: list[float] | None = None
    merges: list[str] | None = None


def sentencepiece_tokens() -> Tokens:
    """Special tokens, bytes, letters, and made-up words of two letters with and without a space before them."""
    letters = "etaoinsrhldcumfpgwybvk"
    words = [first + second for first in letters[:10] for second in letters[:10]]
    pieces = ["▁", *letters, *words, *("▁" + word for word in words)]
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    types += [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(pieces)
    scores = [0.0] * (3 + 256) + [-float(rank) for rank in range(len(pieces))]
    return Tokens("llama", [*SPECIAL, *byte_pieces, *pieces], types, scores)


def byte_tokens() -> Tokens:
    """Tokens are bytes, as in GPT-2, Llama 3 and Qwen, and a few merges; one hole at the end, as padding makes it."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<|endoftext|>", "<|im_end|>", *alphabet, "Ġw", "Ġwo", "[PAD260]"]
    types = [TokenType.CONTROL, TokenType.CONTROL, *[TokenType.NORMAL] * 258, TokenType.UNUSED]
    return Tokens("gpt2", pieces, types, merges=["Ġ w", "Ġw o"])


def random_weights(
    seed: int, vocab_size: int, scale: float = 0.3, config: Mapping[str, Any] = CONFIG
) -> dict[str, np.ndarray]:
    """Of a llama or, with "num_experts", a Mixtral; far from 0 everywhere, so that what must not be seen would show."""
    random = np.random.default_rng(seed)
    hidden, middle = config["hidden_size"], config["intermediate_size"]
    keys = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
    }
    if count := config.get("num_experts"):
        shapes |= {"mlp.router": (count, hidden), "mlp.gate_experts": (count, middle, hidden)}
        shapes |= {"mlp.up_experts": (count, middle, hidden), "mlp.down_experts": (count, hidden, middle)}
    else:
        shapes |= {"mlp.gate_proj": (middle, hidden), "mlp.up_proj": (middle, hidden)}
        shapes |= {"mlp.down_proj": (hidden, middle)}
    named = {
        f"model.layers.{layer}.{name}.weight": shape
        for layer in range(int(config["num_hidden_layers"]))
        for name, shape in shapes.items()
    }
    named |= {
        "model.embed_tokens.weight": (vocab_size, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocab_size, hidden),
    }
    return {
        name: ((1.0 if len(shape) == 1 else 0.0) + scale * random.standard_normal(shape)).astype(np.float32)
        for name, shape in named.items()
    }


def write_gguf(
    path: Path,
    weights: Weights,
    tokens: Tokens,
    config: Mapping[str, Any] = CONFIG,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> Path:
    """Write a llama.

    Args:
        kind: of the matrices; vectors stay in float32.
    """
    writer = gguf.GGUFWriter(path, "llama")
    _add_config(writer, config)
    _add_tokens(writer, tokens)
    for name, weight in weights.items():
        array = _permuted(name, weight, config)
        stored = GGMLQuantizationType.F32 if array.ndim == 1 else kind
        data = array if stored == GGMLQuantizationType.F32 else quants.quantize(array, stored)
        writer.add_tensor(_tensor_name(name), data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_miniature(path: Path, kind: str, config: Mapping[str, Any] = MINIATURE) -> Path:
    """Write a random llama, quantised by llama.cpp: "Q4_K_S", all matrices in one type (a router stays in float32)."""
    import llama_cpp

    tokens = sentencepiece_tokens()
    weights = random_weights(7, len(tokens.pieces), 0.08, config)
    whole = write_gguf(path.with_suffix(".f32.gguf"), weights, tokens, config)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.pure = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}"), 1, True
    assert llama_cpp.llama_model_quantize(bytes(whole), bytes(path), params) == 0
    return path


def convert_folder(folder: Path, path: Path, kind: GGMLQuantizationType = GGMLQuantizationType.F32) -> Path:
    """Write a Hugging Face folder of a llama with a SentencePiece vocabulary."""
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    if "model.embed_tokens.weight" not in weights:  # tied
        weights["model.embed_tokens.weight"] = weights.pop("lm_head.weight")
    return write_gguf(path, weights, _folder_tokens(folder), config, kind)


def _folder_tokens(folder: Path) -> Tokens:
    stated = json.loads((folder / "tokenizer.json").read_text())
    ids: dict[str, int] = stated["model"]["vocab"]
    ranks = {
        "".join(merge) if isinstance(merge, list) else merge.replace(" ", ""): rank
        for rank, merge in enumerate(stated["model"]["merges"])
    }
    pieces = sorted(ids, key=lambda piece: ids[piece])
    special = {token["content"] for token in stated["added_tokens"]}
    types = [
        TokenType.UNKNOWN
        if piece == "<unk>"
        else TokenType.CONTROL
        if piece in special
        else TokenType.BYTE
        if piece.startswith("<0x")
        else TokenType.NORMAL
        for piece in pieces
    ]
    return Tokens("llama", pieces, types, [-float(ranks.get(piece, 0)) for piece in pieces])


def _add_config(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    if "num_experts" in config:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_used"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])


def _add_tokens(writer: gguf.GGUFWriter, tokens: Tokens) -> None:
    writer.add_tokenizer_model(tokens.kind)
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens.pieces)
    writer.add_token_types(tokens.types)
    if tokens.scores is not None:
        writer.add_token_scores(tokens.scores)
    if tokens.merges is not None:
        writer.add_token_merges(tokens.merges)
    is_pieces = tokens.kind == "llama"
    writer.add_bos_token_id(1 if is_pieces else 0)
    writer.add_eos_token_id(2 if is_pieces else 1)
    writer.add_add_bos_token(is_pieces)
    writer.add_chat_template(CHAT)


def _tensor_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        _, _, layer, rest = stem.split(".", 3)
        return f"blk.{layer}.{_NAMES[rest]}.weight"
    return f"{_NAMES[stem]}.weight"


def _permuted(name: str, weight: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Llama files turn pairs of neighbours; Hugging Face turns the first half of a head with the second."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    num_heads = next((count for part, count in heads.items() if part in name), None)
    if num_heads is None:
        return weight
    rows, columns = weight.shape
    return weight.reshape(num_heads, 2, rows // num_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
