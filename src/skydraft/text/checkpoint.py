"""Where a model's files are, and what its config.json says. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from skydraft.errors import ModelLoadError, first_line

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent.parent / "models"
STORIES = "stories"
STORIES_FOLDER = EMBEDDED_FOLDER / STORIES
HUB_FILES = ("*.json", "*.safetensors", "*.jinja")
TOKENIZER_FILES = ("*.json", "*.jinja")

DEFAULT_MAX_LENGTH = 4096  # tokens of a text, where nothing says otherwise

Role = Literal["draft", "target"]  # of a pair of models
ConfigTable = Mapping[str, Any]

PLAIN_LAYERS = {"full_attention", "sliding_attention", "attention"}
# Recurrent models, hybrids and those with chunked attention whose config.json does not name the kinds of its layers:
# their class fills them in.
RECURRENT_TYPES = frozenset({
    *("bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear", "lfm2", "lfm2_moe", "llama4"),
    *("llama4_text", "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "phi4flash", "plamo2", "qwen3_5"),
    *("qwen3_5_moe", "qwen3_5_text", "qwen3_next", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2"),
})  # fmt: skip
RECURRENT_SETTINGS = (
    "attention_chunk_size",
    "conv_L_cache",
    "full_attention_interval",
    "linear_num_value_heads",
    "lru_width",
    "mamba_d_state",
)


@dataclass(frozen=True)
class Checkpoint:
    """A model folder whose config.json has been read.

    name: for people and error messages.
    """

    name: str
    folder: Path
    config: ConfigTable

    @classmethod
    def open(cls, folder: Path, name: str | None = None) -> Checkpoint:
        """Read a folder's config.json.

        Raises:
            ModelLoadError: there is no such folder, or no readable config.json in it.
        """
        if not folder.is_dir():
            raise ModelLoadError(f"there is no model folder {folder}")
        return cls(name or folder.resolve().name, folder, read_json(folder / "config.json"))

    @property
    def files(self) -> list[Path]:
        """Configuration, tokenizer and weights."""
        return sorted(file for suffix in ("json", "safetensors") for file in self.folder.glob(f"*.{suffix}"))

    @cached_property
    def thinker_config(self) -> ConfigTable:
        """For a whole Qwen2.5-Omni folder the config of the part that listens and writes; else the config itself."""
        return _table(self.config, "thinker_config") or self.config

    @cached_property
    def text_config(self) -> ConfigTable:
        """What describes the language model."""
        return _table(self.thinker_config, "text_config") or self.thinker_config

    @property
    def is_omni(self) -> bool:
        return str(self.config.get("model_type", "")).startswith("qwen2_5_omni")

    @property
    def architectures(self) -> tuple[str, ...]:
        """Names of the model classes that the checkpoint was saved from."""
        stated = self.config.get("architectures")
        return tuple(map(str, stated)) if isinstance(stated, list) else ()

    @property
    def vocabulary_size(self) -> int | None:
        """Rows of the logits; None where the config does not say."""
        size = self.text_config.get("vocab_size")
        return size if isinstance(size, int) else None

    @property
    def longest_text(self) -> tuple[int, str]:
        """How many positions the model can tell apart, and what says so.

        A sliding window is no limit: engines keep what is beyond it.
        """
        config = self.text_config
        known = {name: _positive(config, name) for name in ("max_position_embeddings", "n_positions", "max_seq_len")}
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if isinstance(rope, dict) and "longrope" in (rope.get("rope_type"), rope.get("type")):
            # Beyond it the model turns all its keys another way, those that are in the cache already too.
            name = "original_max_position_embeddings"
            known[name] = _positive({**config, **rope}, name)
        found = {name: value for name, value in known.items() if value is not None}
        if not found:
            return DEFAULT_MAX_LENGTH, "its config names no limit"
        name = min(found, key=lambda key: found[key])
        return found[name], f"{name} of its config"


def require_rollback(checkpoint: Checkpoint) -> None:
    """Refuse models that keep another state than keys and values: it cannot be rolled back after a rejected draft.

    Raises:
        ModelLoadError: naming the kinds of layers, or the kind of model.
    """
    config = checkpoint.text_config
    stated = config.get("layer_types") or config.get("layers_block_type") or config.get("hybrid_override_pattern") or []
    kinds = set(map(str, stated if isinstance(stated, list) else ["hybrid"])) - PLAIN_LAYERS
    kinds |= {str(config.get("model_type"))} & RECURRENT_TYPES
    kinds |= {name for name in RECURRENT_SETTINGS if config.get(name)}
    if kinds:
        raise ModelLoadError(
            f"{checkpoint.name} has layers of the kind {', '.join(sorted(kinds))}, whose state cannot be rolled back "
            "after a rejected draft: use a model whose layers have full or sliding attention"
        )


def require_safe_files(checkpoint: Checkpoint) -> None:
    """Refuse weights that are not in .safetensors files: pickled ones can run code from the model's maker.

    Raises:
        ModelLoadError: naming a file, where there is one.
    """
    folder = checkpoint.folder
    index = read_json(folder / "model.safetensors.index.json", is_required=False)
    files = set(map(str, (_table(index, "weight_map") or {}).values()))
    others = [name for name in files if not name.endswith(".safetensors")]
    if not any(folder.glob("*.safetensors")):
        others += [path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern)]
    elif not others:
        return
    only = f", only {min(others)}: convert it, for such a file can run code when it is read" if others else ""
    raise ModelLoadError(f"{checkpoint.name} has no model.safetensors or other .safetensors files with weights{only}")


def is_custom(checkpoint: Checkpoint) -> bool:
    """Whether the model came with Python code of its own; its class may be part of transformers all the same."""
    return "auto_map" in checkpoint.config


def custom_code(checkpoint: Checkpoint) -> ModelLoadError:
    """Says that the model needs its own code."""
    return ModelLoadError(
        f"{checkpoint.name} needs the code that came with it (auto_map of its config.json), which skydraft does not "
        "run: use a model whose class is part of transformers"
    )


def find_checkpoint(model: str, role: Role, files: Sequence[str] = HUB_FILES) -> Checkpoint:
    """Resolve `embedded`, `stories`, a folder or a Hugging Face name; the last is fetched, or in the local cache.

    Args:
        files: patterns of what to fetch.
    Raises:
        ModelLoadError: there is no such model, or it cannot be fetched.
    """
    if model == EMBEDDED:
        return Checkpoint.open(EMBEDDED_FOLDER / role, f"skydraft-embedded-{role}")
    if model == STORIES:
        return Checkpoint.open(STORIES_FOLDER / role, f"skydraft-stories-{role}")
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Checkpoint.open(folder)
    if not _may_be_hub_name(model):
        raise ModelLoadError(
            f"there is no model folder {model}; give a folder, a Hugging Face name such as Qwen/Qwen2.5-Omni-3B, "
            f"`{EMBEDDED}`, `{STORIES}` or `table:...`"
        )
    return Checkpoint.open(_fetch(model, files), model)


def read_json(path: Path, is_required: bool = True) -> ConfigTable:
    """Read a JSON object; a missing file that is not required is an empty one.

    Raises:
        ModelLoadError: the file is missing, cannot be read, or is no JSON object.
    """
    if not is_required and not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelLoadError(f"{path.parent} has no {path.name}: it is not a model folder") from error
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} holds a JSON {type(content).__name__} and should hold an object")
    return content


def _table(config: ConfigTable, name: str) -> ConfigTable | None:
    value = config.get(name)
    return value if isinstance(value, dict) else None


def _positive(config: ConfigTable, name: str) -> int | None:
    value = config.get(name)
    return value if isinstance(value, int) and value > 0 else None


def _may_be_hub_name(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "/", "~")) and not model.endswith("/")


def _fetch(model: str, files: Sequence[str]) -> Path:
    import huggingface_hub  # only a Hugging Face name needs it, and it comes with `tokenizers`

    try:
        return Path(huggingface_hub.snapshot_download(model, allow_patterns=list(files)))
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"{model} is no folder, and it cannot be fetched from Hugging Face ({first_line(error)}): check the name "
            "and the connection, or download it elsewhere and give the folder"
        ) from error
