"""Qwen2.5-Omni thinkers: they read text and listen, and write text."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from skydraft.core import Prompt
from skydraft.engines.huggingface.kv_cache import ATTENTION_NAME, BatchPlan, SlotCache
from skydraft.engines.huggingface.slot_engine import Inputs, SlotEngine, start_engine
from skydraft.engines.huggingface.weights import load_weights
from skydraft.engines.log_mel import Level, load_level
from skydraft.engines.omni_prompt import AudioIds, OmniPrompts, Sound, require_thinker
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ModelLoadError
from skydraft.text.checkpoint import Checkpoint
from skydraft.text.tokenizer import FolderTokenizer
from skydraft.text.vocabulary import Vocabulary


class OmniModel:
    """A Qwen2.5-Omni thinker as slot engines use it.

    Text and sound have the same position on all three axes of the rotary embedding (get_rope_index differs only for
    images and video), so a position is the index in the text.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary, level: Level | None = None) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.num_layers = int(model.config.text_config.num_hidden_layers)
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        config = model.config
        ids = AudioIds(config.audio_token_id, config.audio_start_token_id, config.audio_end_token_id)
        self._prompts = OmniPrompts(vocabulary.name, ids, int(config.audio_config.num_mel_bins), level)

    def token_ids(self, prompt: Prompt) -> list[int]:
        return self._prompts.token_ids(prompt)

    def embeddings(self, prompt: Prompt, token_ids: list[int]) -> Tensor | None:
        sounds = self._prompts.sounds(prompt)
        if not sounds:
            return None
        embeddings = self._embed(torch.tensor(token_ids, device=self.device))
        for sound in sounds:
            embeddings[sound.start : sound.start + sound.num_tokens] = self._listen(sound)
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

    def _embed(self, token_ids: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(token_ids)  # type: ignore[no-any-return]

    def _listen(self, sound: Sound) -> Tensor:
        """What the audio tower makes of a sound: [num_audio_tokens, hidden_size]."""
        batch = torch.from_numpy(sound.features).to(self.device)[None]
        mask = torch.ones(1, sound.features.shape[1], dtype=torch.long, device=self.device)
        heard = self.model.model.get_audio_features(batch, feature_attention_mask=mask, return_dict=True)
        return heard.last_hidden_state.to(self.dtype)  # type: ignore[no-any-return]


def load_omni(checkpoint: Checkpoint, settings: EngineSettings) -> SlotEngine:
    """Load a thinker from its own folder, or from a whole Qwen2.5-Omni folder.

    Raises:
        ModelLoadError: it is another part of Qwen2.5-Omni, or cannot be loaded.
    """
    require_thinker(checkpoint)
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
