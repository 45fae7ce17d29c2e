"""An engine for small Qwen2.5-Omni thinkers, such as the embedded pair, in NumPy: it starts at once, without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from skydraft.core import Prompt
from skydraft.engines.base import (
    EngineLimits,
    Extension,
    PromptChunk,
    RowPromise,
)
from skydraft.engines.embedding_slots import EmbeddingSlots
from skydraft.engines.log_mel import load_level
from skydraft.engines.numpy.audio_tower import AudioTower
from skydraft.engines.numpy.layers import apart, together
from skydraft.engines.numpy.text_model import PassPlan, TextConfig, TextModel
from skydraft.engines.numpy.weights import Floats, Weights
from skydraft.engines.omni_prompt import AudioIds, OmniPrompts
from skydraft.engines.settings import EngineSettings
from skydraft.engines.slots import Placement
from skydraft.errors import ConfigError, ModelLoadError
from skydraft.text.checkpoint import Checkpoint, ConfigTable, require_rollback
from skydraft.text.tokenizer import FolderTokenizer
from skydraft.text.vocabulary import Vocabulary

THINKER_TYPE = "qwen2_5_omni_thinker"
INVARIANT = RowPromise(True, "with NumPy in float32, where each row is a product of its own")
FAST = RowPromise(False, "several rows are rounded in another way than one where they are computed together")


class NumpyEngine(EmbeddingSlots[Floats]):
    """Slots on a thinker.

    Args:
        row_promise: of the products of the text model.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompts: OmniPrompts,
        tower: AudioTower,
        text_model: TextModel,
        limits: EngineLimits,
        prefill_chunk: int,
        row_promise: RowPromise,
    ) -> None:
        super().__init__(vocabulary, limits, text_model.cache, prefill_chunk, row_promise)
        self._prompts = prompts
        self._tower = tower
        self._text_model = text_model

    def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Floats]:
        placements = self._book.place(extensions, self.vocabulary.size)
        if not placements:
            return []
        embedded = np.concatenate([self._embedded(placement) for placement in placements])
        rows = self._text_model.read(embedded, PassPlan(placements))
        ends = np.cumsum([len(placement.token_ids) for placement in placements])
        wanted = [rows[end - placement.num_rows : end] for placement, end in zip(placements, ends, strict=True)]
        logits = self._text_model.logits(np.concatenate(wanted))
        self._commit(placements)
        return np.split(logits, np.cumsum([len(part) for part in wanted])[:-1])

    def _token_ids(self, prompt: Prompt) -> list[int]:
        return self._prompts.token_ids(prompt)

    def _embeddings(self, prompt: Prompt, token_ids: list[int]) -> Floats | None:
        sounds = self._prompts.sounds(prompt)
        if not sounds:
            return None
        embeddings = self._text_model.embed(token_ids)
        for sound in sounds:
            embeddings[sound.start : sound.start + sound.num_tokens] = self._tower.listen(sound.features)
        return embeddings

    def _embedded(self, placement: Placement) -> Floats:
        """What the text model reads: [num_tokens, size]."""
        unread = self._unread.get(placement.slot)
        return (
            self._text_model.embed(placement.token_ids) if unread is None else unread[placement.start : placement.end]
        )


def load_numpy(checkpoint: Checkpoint, settings: EngineSettings) -> NumpyEngine:
    """Load a thinker from its own folder.

    Raises:
        ModelLoadError: it is another kind of model, or cannot be loaded.
        ConfigError: the settings ask for what NumPy does not do.
    """
    _require_place(checkpoint, settings)
    _require_known(checkpoint)
    limits = settings.limits(checkpoint.name, *checkpoint.longest_text)
    # More threads than one would wait for each other: products of single rows take microseconds.
    threadpool_limits(settings.num_threads or 1, user_api="blas")
    weights, vocabulary = Weights(checkpoint), FolderTokenizer(checkpoint).vocabulary
    config, level = checkpoint.thinker_config, load_level(checkpoint)
    product, promise = (together, FAST) if settings.fast_math else (apart, INVARIANT)
    try:
        tower = AudioTower(config["audio_config"], weights)
        text_model = TextModel(TextConfig.read(config), weights, limits, product)
        prompts = OmniPrompts(checkpoint.name, _audio_ids(config), int(config["audio_config"]["num_mel_bins"]), level)
    except MemoryError as error:
        raise ModelLoadError(
            f"{checkpoint.name} does not fit into memory: use a smaller model, or fewer or shorter slots"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelLoadError(
            f"the config.json of {checkpoint.name} does not say what NumPy must know: {error}"
        ) from error
    return NumpyEngine(vocabulary, prompts, tower, text_model, limits, settings.prefill_chunk, promise)


def _audio_ids(config: ConfigTable) -> AudioIds:
    names = ("audio_token_index", "audio_start_token_id", "audio_end_token_id")
    return AudioIds(*(int(config[name]) for name in names))


def _require_place(checkpoint: Checkpoint, settings: EngineSettings) -> None:
    for name, value, allowed in (
        ("device", settings.device, ("auto", "cpu")),
        ("dtype", settings.dtype, ("auto", "float32")),
        ("quantize", settings.quantize, (False,)),
    ):
        if value not in allowed:
            raise ConfigError(
                f"{name} is {value!r} and NumPy, which runs {checkpoint.name}, computes on a CPU in float32: leave it "
                f"out, or have PyTorch run the model, by the name {checkpoint.folder}"
            )


def _require_known(checkpoint: Checkpoint) -> None:
    """Refuse models that are computed in another way.

    Raises:
        ModelLoadError: naming what is different.
    """
    require_rollback(checkpoint)
    config, audio = checkpoint.text_config, checkpoint.thinker_config.get("audio_config") or {}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    found = {
        "model_type": checkpoint.config.get("model_type"),
        "hidden_act": config.get("hidden_act", "silu"),
        "activation_function": audio.get("activation_function", "gelu"),
        "rope_type": rope.get("rope_type", rope.get("type", "default")),
        "use_sliding_window": bool(config.get("use_sliding_window")),
    }
    known = {
        "model_type": (THINKER_TYPE,),
        "hidden_act": ("silu",),
        "activation_function": ("gelu",),
        "rope_type": ("default", "mrope"),
        "use_sliding_window": (False,),
    }
    for name, value in found.items():
        if value not in known[name]:
            raise ModelLoadError(
                f"{checkpoint.name} has {name} {value!r}, and NumPy runs models with {known[name][0]!r}: give its "
                "folder without numpy:, and PyTorch runs it"
            )
