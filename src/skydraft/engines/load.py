"""From a model's name to an engine."""

from __future__ import annotations

import importlib.util
import os

from skydraft.engines.base import Engine, EngineLimits
from skydraft.engines.emulated.paced import pace_engine, split_pace
from skydraft.engines.emulated.table_spec import PREFIX, load_table, parse_table, spec_vocabulary
from skydraft.engines.emulated.words import WordTokenizer
from skydraft.engines.external.names import folder_name, is_served, load_served
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ConfigError, ModelLoadError
from skydraft.text.chat_template import ChatTemplate, load_chat_template
from skydraft.text.checkpoint import DEFAULT_MAX_LENGTH, Checkpoint, Role, find_checkpoint
from skydraft.text.gguf_files import find_gguf, is_gguf
from skydraft.text.tokenizer import FolderTokenizer, Tokenizer

DEFAULT_SETTINGS = EngineSettings()

# How often a thread of libgomp, which torch and llama.cpp compute with, looks for work before it sleeps. As a rule it
# looks for milliseconds, and where two processes have a thread for each core each spends them on the other's cores: a
# caption by a device and a cloud on two cores took 1.3 s, and takes 0.35 s with this. Alone a process is as fast.
SPIN_COUNT = 10_000


def load_engine(model: str, role: Role, settings: EngineSettings = DEFAULT_SETTINGS) -> Engine:
    """Load a model.

    Args:
        model: `embedded`, a folder, a Hugging Face name, a GGUF file, `vllm:...`, `sglang:...` or `table:...`;
            `paced:...:` before it gives it another pace.
        role: which of the embedded pair; and only a draft may be quantised, for rounded activations make the logits
            of one text depend on the others of its batch.
    Raises:
        ModelLoadError: there is no such model, or it cannot be loaded or run.
        ConfigError: the settings do not fit the machine or the role.
    """
    if settings.quantize and role == "target":
        raise ConfigError("quantize is for draft models: a quantised target's choices would depend on its batch")
    pace, model = split_pace(model)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))  # read when the library is loaded, with torch
    engine = _load_unpaced(model, role, settings)
    return engine if pace is None else pace_engine(engine, pace)


def load_tokenizer(model: str, role: Role) -> Tokenizer:
    """Load a model's tokenizer; needs no torch.

    Raises:
        ModelLoadError: there is no such model, or it has no readable tokenizer.
    """
    _, model = split_pace(model)
    if model.startswith(PREFIX):
        return WordTokenizer(spec_vocabulary(parse_table(model), model))
    if is_gguf(model):
        path = find_gguf(model)
        from skydraft.engines.llamacpp.tokenizer import load_gguf_tokenizer  # the llamacpp extra

        return load_gguf_tokenizer(path)
    return FolderTokenizer(find_checkpoint(folder_name(model), role))


def find_max_length(model: str, role: Role, settings: EngineSettings = DEFAULT_SETTINGS) -> int | None:
    """How many tokens of one sequence a model will hold, told before its weights are loaded; None: only they tell.

    Raises:
        ModelLoadError: there is no such model.
        ConfigError: the settings ask for more than it takes.
    """
    _, model = split_pace(model)
    if model.startswith(PREFIX):
        return settings.max_length or DEFAULT_MAX_LENGTH
    if is_served(model) or is_gguf(model):
        return settings.max_length or None
    checkpoint = find_checkpoint(model, role)
    return settings.limits(checkpoint.name, *checkpoint.longest_text).max_length


def load_chat_format(model: str, role: Role) -> ChatTemplate | None:
    """Load a model's chat template; None for one without.

    Raises:
        ModelLoadError: there is no such model, or its template cannot be used.
    """
    _, model = split_pace(model)
    if model.startswith(PREFIX):
        return None
    if is_gguf(model):
        path = find_gguf(model)
        from skydraft.engines.llamacpp.tokenizer import load_gguf_chat_template  # the llamacpp extra

        return load_gguf_chat_template(path)
    return load_chat_template(find_checkpoint(folder_name(model), role))


def _load_unpaced(model: str, role: Role, settings: EngineSettings) -> Engine:
    if model.startswith(PREFIX):
        return load_table(model, EngineLimits(settings.num_slots, settings.max_length or DEFAULT_MAX_LENGTH))
    if is_served(model):
        return load_served(model, role, settings)
    if is_gguf(model):
        path = find_gguf(model)
        from skydraft.engines.llamacpp.load import load_llamacpp  # the llamacpp extra

        return load_llamacpp(path, settings)
    checkpoint = find_checkpoint(model, role)
    _require_torch(checkpoint)
    return _load_decoder(checkpoint, settings)


def _load_decoder(checkpoint: Checkpoint, settings: EngineSettings) -> Engine:
    import torch  # the torch extra; `table:` models do without it

    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    if checkpoint.is_omni:
        from skydraft.engines.huggingface.omni import load_omni

        return load_omni(checkpoint, settings)
    from skydraft.engines.huggingface.causal import load_causal

    return load_causal(checkpoint, settings)


def _require_torch(checkpoint: Checkpoint) -> None:
    missing = [name for name in ("torch", "transformers", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelLoadError(
            f"{checkpoint.name} needs {' and '.join(missing)}, which skydraft's torch extra brings: "
            "pip install 'skydraft[torch]'"
        )
