"""The captioning loss of a model of the Hugging Face class, with the tower computed once for all heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2_5OmniThinkerForConditionalGeneration

from training import tokenizer as tok
from training.captions import EMOTION_WORDS

_EMOTION_WEIGHT = 4.0
_SMOOTHING = 0.05


class Written(NamedTuple):
    """Captions as padded token rows, prompts included."""

    ids: torch.Tensor  # int64 [num_rows, length]
    is_token: torch.Tensor  # bool [num_rows, length]
    is_caption: torch.Tensor  # bool [num_rows, length], what the loss counts


class Writer:
    """Lays out prompts and captions as token ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        words = [(word, index) for index, family in enumerate(EMOTION_WORDS.values()) for word in family]
        self.emotion_ids = torch.tensor([tokenizer.encode(" " + word)[0] for word, _ in words])
        self.emotion_indices = torch.tensor([index for _, index in words])
        self._pad = tokenizer.pad_token_id
        before, after = tok.prompt(1).split(tok.AUDIO)
        self._before, self._after = tokenizer.encode(before), tokenizer.encode(after)
        self._text_only = tokenizer.encode(tok.prompt(0))
        self._audio = tokenizer.convert_tokens_to_ids(tok.AUDIO)

    def rows(self, captions: Sequence[str], num_audio_tokens: Sequence[int]) -> Written:
        """Lay out one row a caption; 0 audio tokens means the text-only prompt."""
        prompts = [self.prompt_ids(n) for n in num_audio_tokens]
        ends = [self._tokenizer.encode(text + tok.TURN_END) for text in captions]
        length = max(len(p) + len(e) for p, e in zip(prompts, ends, strict=True))
        ids = torch.full((len(prompts), length), self._pad)
        is_caption = torch.zeros(len(prompts), length, dtype=torch.bool)
        is_token = torch.zeros(len(prompts), length, dtype=torch.bool)
        for row, (begin, end) in enumerate(zip(prompts, ends, strict=True)):
            ids[row, : len(begin) + len(end)] = torch.tensor(begin + end)
            is_caption[row, len(begin) : len(begin) + len(end)] = True
            is_token[row, : len(begin) + len(end)] = True
        return Written(ids, is_token, is_caption)

    def prompt_ids(self, num_audio_tokens: int) -> list[int]:
        """The prompt's token ids, equal to encoding `tokenizer.prompt(num_audio_tokens)`."""
        if not num_audio_tokens:
            return list(self._text_only)
        return [*self._before, *[self._audio] * num_audio_tokens, *self._after]


def token_log_probs(
    model: Qwen2_5OmniThinkerForConditionalGeneration, written: Written, tokens: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities over the vocabulary at every caption token, and the token ids there.

    Args:
        written: the rows; audio placeholders in row order match `tokens`.
        tokens: float [total_tokens, text_width] from the audio tower, or None when all rows are text-only.
    Returns:
        log_probs float [num_caption_tokens, vocab_size] and ids int64 [num_caption_tokens].
    """
    embeds = model.get_input_embeddings()(written.ids)
    if tokens is not None:
        is_audio = (written.ids == model.config.audio_token_index)[..., None]
        embeds = embeds.masked_scatter(is_audio, tokens)
    hidden = model.model.language_model(inputs_embeds=embeds, attention_mask=written.is_token.long(), use_cache=False)
    is_caption = written.is_caption[:, 1:]
    logits = model.lm_head(hidden.last_hidden_state[:, :-1][is_caption])
    return logits.log_softmax(-1), written.ids[:, 1:][is_caption]


def next_words(
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    writer: Writer,
    begun: Sequence[str],
    num_audio_tokens: Sequence[int],
    tokens: torch.Tensor,
) -> torch.Tensor:
    """Which emotion's word most probably follows the begun captions: int64 [num_rows], indices into EMOTIONS."""
    written = writer.rows(begun, num_audio_tokens)
    log_probs, _ = token_log_probs(model, written, tokens)
    ends = torch.cumsum(written.is_caption.sum(dim=1), dim=0) - 1  # where the end of the turn was to come
    best = log_probs[ends][:, writer.emotion_ids].argmax(-1)
    return writer.emotion_indices[best]


def loss(log_probs: torch.Tensor, ids: torch.Tensor, emotion_ids: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood with smoothing; emotion words count more: a scalar."""
    weight = 1 + (_EMOTION_WEIGHT - 1) * torch.isin(ids, emotion_ids).float()
    nll = functional.nll_loss(log_probs, ids, reduction="none")
    return ((nll * (1 - _SMOOTHING) - log_probs.mean(-1) * _SMOOTHING) * weight).sum() / weight.sum()
