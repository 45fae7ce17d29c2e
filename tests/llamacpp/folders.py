"""Hugging Face folders that hold what a GGUF file holds."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM

from tests.llamacpp.files import CONFIG, SPECIAL, Tokens, Weights


def save_twin(folder: Path, weights: Weights, tokens: Tokens) -> Path:
    """Save a llama with CONFIG and its tokenizer."""
    config = LlamaConfig(**CONFIG, vocab_size=len(tokens.pieces), bos_token_id=1, eos_token_id=2)
    model = LlamaForCausalLM(config)
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
    model.save_pretrained(folder)
    _tokenizer(tokens).save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2]}))
    return folder


def _tokenizer(tokens: Tokens) -> tokenizers.Tokenizer:
    """What a SentencePiece vocabulary becomes in a tokenizer.json."""
    ids = {piece: index for index, piece in enumerate(tokens.pieces)}
    merges = [_halves(piece) for piece in tokens.pieces if len(piece) in (2, 3) and not piece.startswith("<")]
    tokenizer = tokenizers.Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _halves(piece: str) -> tuple[str, str]:
    """A word is merged from its letters, and one with a space before it from the space and the word."""
    return piece[0], piece[1:]
