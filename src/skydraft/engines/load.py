"""From a model's name to an engine."""

from __future__ import annotations

import importlib.util

from skydraft.engines.base import Engine, EngineLimits
from skydraft.engines.checkpoint import DEFAULT_MAX_LENGTH, Checkpoint, find_checkpoint
from skydraft.engines.settings import EngineSettings, Role
from skydraft.engines.table_spec import PREFIX, load_table, parse_table, spec_vocabulary
from skydraft.engines.tokenizer import FolderTokenizer, Tokenizer
from skydraft.engines.words import WordTokenizer
from skydraft.errors import ConfigError, ModelLoadError

DEFAULT_SETTINGS = EngineSettings()


def load_engine(model: str, role: Role, settings: EngineSettings = DEFAULT_SETTINGS) -> Engine:
    """Load a model.

    Args:
        model: `embedded`, a folder, a Hugging Face name, or `table:...`.
        role: which of the embedded pair; and only a draft may be quantised, for rounded activations make the logits
            of one text depend on the others of its batch.
    Raises:
        ModelLoadError: there is no such model, or it cannot be loaded or run.
        ConfigError: the settings do not fit the machine or the role.
    """
    if settings.quantize and role == "target":
        raise ConfigError("quantize is for draft models: a quantised target's choices would depend on its batch")
    if model.startswith(PREFIX):
        return load_table(model, EngineLimits(settings.num_slots, settings.max_length or DEFAULT_MAX_LENGTH))
    checkpoint = find_checkpoint(model, role)
    _require_torch(checkpoint)
    return _load_decoder(checkpoint, settings)


def load_tokenizer(model: str, role: Role) -> Tokenizer:
    """Load a model's tokenizer; needs no torch.

    Raises:
        ModelLoadError: there is no such model, or it has no readable tokenizer.
    """
    if model.startswith(PREFIX):
        return WordTokenizer(spec_vocabulary(parse_table(model), model))
    return FolderTokenizer(find_checkpoint(model, role))


def _load_decoder(checkpoint: Checkpoint, settings: EngineSettings) -> Engine:
    import torch  # the torch extra; `table:` models do without it

    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    if checkpoint.is_omni:
        from skydraft.engines.omni import load_omni

        return load_omni(checkpoint, settings)
    from skydraft.engines.transformers import load_causal

    return load_causal(checkpoint, settings)


def _require_torch(checkpoint: Checkpoint) -> None:
    missing = [name for name in ("torch", "transformers", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelLoadError(
            f"{checkpoint.name} needs {' and '.join(missing)}, which skydraft's torch extra brings: "
            "pip install 'skydraft[torch]'"
        )
