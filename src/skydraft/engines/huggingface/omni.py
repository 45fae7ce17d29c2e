"""Qwen2.5-Omni thinkers: they read text and listen, and write text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from skydraft.core import Prompt, TensorSegment, TokenSegment
from skydraft.engines.huggingface.kv_cache import ATTENTION_NAME, BatchPlan, SlotCache
from skydraft.engines.huggingface.log_mel import LEVELLED_NAME, MAX_VALUE, MIN_FRAMES, NAME, Level, load_level
from skydraft.engines.huggingface.slot_engine import Inputs, SlotEngine, start_engine
from skydraft.engines.huggingface.weights import load_weights
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ModelLoadError, PromptRejected
from skydraft.text.checkpoint import Checkpoint
from skydraft.text.tokenizer import FolderTokenizer
from skydraft.text.vocabulary import Vocabulary

THINKER_TYPES = ("qwen2_5_omni", "qwen2_5_omni_thinker")
_NUMPY_DTYPES = {"float16": "<f2", "float32": "<f4", "int8": "i1"}


class _Sound(NamedTuple):
    start: int  # index of its first entry in the prompt
    num_tokens: int
    segment: TensorSegment


class OmniModel:
    """A Qwen2.5-Omni thinker as slot engines use it.

    In a prompt, a tensor "log_mel" or, of a model with a level, "levelled_log_mel", [num_mel_bins, num_frames] stands
    between the tokens <|audio_bos|> and <|audio_eos|>; its entries, one for about four frames, are inserted here. Text
    and sound have the same position on all three axes of the rotary embedding (get_rope_index differs only for images
    and video), so a position is the index in the text.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary, level: Level | None = None) -> None:
        self.model = model
        self._level = level
        self.vocabulary = vocabulary
        self.num_layers = int(model.config.text_config.num_hidden_layers)
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype

    def token_ids(self, prompt: Prompt) -> list[int]:
        token_ids: list[int] = []
        for segment in prompt.segments:
            match segment:
                case TokenSegment():
                    token_ids += segment.token_ids
                case TensorSegment():
                    token_ids += [self._placeholder_id] * self._num_audio_tokens(segment)
                    _require_log_mel(self._features(segment))
        self._require_framed(prompt, token_ids)
        return token_ids

    def embeddings(self, prompt: Prompt, token_ids: list[int]) -> Tensor | None:
        sounds = list(self._sounds(prompt))
        if not sounds:
            return None
        embeddings = self._embed(torch.tensor(token_ids, device=self.device))
        for sound in sounds:
            embeddings[sound.start : sound.start + sound.num_tokens] = self._listen(sound.segment)
        return embeddings

    def logits(self, inputs: Inputs, plan: BatchPlan, cache: SlotCache) -> Tensor:
        embeddings = self._embed(inputs.token_ids)
        for start, part in inputs.embedded:
            embeddings[0, start : start + len(part)] = part
        output = self.model.model.language_model(
            inputs_embeds=embeddings, position_ids=plan.positions, past_key_values=cache, use_cache=True, plan=plan
        )
        hidden = output.last_hidden_state[0]
        return self.model.lm_head(hidden if plan.rows is None else hidden[plan.rows]).float()  # type: ignore[no-any-return]

    def plain_logits(self, token_ids: Tensor) -> Tensor:
        positions = torch.arange(token_ids.shape[1], device=self.device)[None]
        output = self.model(input_ids=token_ids, position_ids=positions, use_cache=False)
        return output.logits[0].float()  # type: ignore[no-any-return]

    def use_slots(self) -> None:
        self.model.model.language_model.set_attn_implementation(ATTENTION_NAME)

    @property
    def _placeholder_id(self) -> int:
        return int(self.model.config.audio_token_id)

    def _embed(self, token_ids: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(token_ids)  # type: ignore[no-any-return]

    def _listen(self, segment: TensorSegment) -> Tensor:
        """What the audio tower makes of features: [num_audio_tokens, hidden_size]."""
        features = self._features(segment)
        batch = torch.from_numpy(features).to(self.device)[None]
        mask = torch.ones(1, features.shape[1], dtype=torch.long, device=self.device)
        heard = self.model.model.get_audio_features(batch, feature_attention_mask=mask, return_dict=True)
        return heard.last_hidden_state.to(self.dtype)  # type: ignore[no-any-return]

    def _features(self, segment: TensorSegment) -> npt.NDArray[np.float32]:
        """What the tower hears: [num_mel_bins, num_frames]"""
        stored = np.frombuffer(segment.data, _NUMPY_DTYPES[segment.dtype]).reshape(segment.shape)
        return stored.astype(np.float32) if self._level is None else self._level.values(stored)

    def _num_audio_tokens(self, segment: TensorSegment) -> int:
        num_mel_bins = int(self.model.config.audio_config.num_mel_bins)
        name, dtypes = (NAME, ("float16", "float32")) if self._level is None else (LEVELLED_NAME, ("int8",))
        is_heard = segment.name == name and segment.dtype in dtypes
        has_shape = len(segment.shape) == 2 and segment.shape[0] == num_mel_bins
        if not is_heard or not has_shape or segment.shape[1] < MIN_FRAMES:
            raise PromptRejected(
                f"{self.vocabulary.name} hears {name} [{num_mel_bins}, at least {MIN_FRAMES} frames] in "
                f"{' or '.join(dtypes)}, and the prompt has {segment.name} {list(segment.shape)} in {segment.dtype}"
            )
        return ((segment.shape[1] - 1) // 2 + 1 - 2) // 2 + 1  # two strides of 2: a convolution and a pooling

    def _sounds(self, prompt: Prompt) -> Iterator[_Sound]:
        start = 0
        for segment in prompt.segments:
            if isinstance(segment, TensorSegment):
                num_tokens = self._num_audio_tokens(segment)
                yield _Sound(start, num_tokens, segment)
                start += num_tokens
            else:
                start += len(segment.token_ids)

    def _require_framed(self, prompt: Prompt, token_ids: list[int]) -> None:
        config = self.model.config
        sounds = list(self._sounds(prompt))
        for start, num_tokens, _ in sounds:
            before, after = token_ids[:start][-1:], token_ids[start + num_tokens :][:1]
            if before != [config.audio_start_token_id] or after != [config.audio_end_token_id]:
                raise PromptRejected(
                    f"sound must stand between the tokens {config.audio_start_token_id} and "
                    f"{config.audio_end_token_id} and stands between {before or 'nothing'} and {after or 'nothing'}"
                )
        if token_ids.count(self._placeholder_id) != sum(sound.num_tokens for sound in sounds):
            raise PromptRejected(
                f"the prompt has the token {self._placeholder_id}, which stands for sound: give features in its place"
            )


def _require_log_mel(features: npt.NDArray[np.float32]) -> None:
    """Refuse values that no sound has.

    Raises:
        PromptRejected: one is no number, or too large.
    """
    if not max(features.max(), -features.min()) <= MAX_VALUE:  # in this form, for a NaN fails every comparison
        raise PromptRejected(f"log_mel has values that are no numbers or beyond {MAX_VALUE:g}: it is not log-mel")


def load_omni(checkpoint: Checkpoint, settings: EngineSettings) -> SlotEngine:
    """Load a thinker from its own folder, or from a whole Qwen2.5-Omni folder.

    Raises:
        ModelLoadError: it is another part of Qwen2.5-Omni, or cannot be loaded.
    """
    model_type = checkpoint.config.get("model_type")
    if model_type not in THINKER_TYPES:
        raise ModelLoadError(
            f"{checkpoint.name} is a {model_type}; of Qwen2.5-Omni skydraft runs the thinker, "
            f"{' or '.join(THINKER_TYPES)}"
        )
    limits = settings.limits(checkpoint.name, *checkpoint.longest_text)
    vocabulary = FolderTokenizer(checkpoint).vocabulary
    model = load_weights(Qwen2_5OmniThinkerForConditionalGeneration, checkpoint, settings)
    if not hasattr(model.model, "language_model"):
        raise ModelLoadError(
            f"{checkpoint.name} needs transformers 5.21 or newer and {transformers.__version__} is installed: "
            "pip install --upgrade transformers"
        )
    model.model.visual = None  # skydraft shows it no images: 0.7 billion parameters of the published models
    return start_engine(OmniModel(model, vocabulary, load_level(checkpoint)), limits, settings)
