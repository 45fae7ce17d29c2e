"""Models in Hugging Face's format, which PyTorch runs: a folder, or a Hugging Face name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from skydraft.core import Calibration
from skydraft.engines.base import Engine
from skydraft.engines.calibration import calibration_of
from skydraft.engines.log_mel import load_log_mel
from skydraft.engines.model_kind import Hear, ModelKind
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ModelLoadError
from skydraft.text.chat_template import ChatTemplate, load_chat_template
from skydraft.text.checkpoint import Checkpoint, Role, find_checkpoint
from skydraft.text.tokenizer import FolderTokenizer


def _load_engine(source: str, role: Role, settings: EngineSettings) -> Engine:
    checkpoint = find_checkpoint(source, role)
    _require_torch(checkpoint)
    import torch

    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    if checkpoint.is_omni:
        from skydraft.engines.huggingface.omni import load_omni

        return load_omni(checkpoint, settings)
    from skydraft.engines.huggingface.causal import load_causal

    return load_causal(checkpoint, settings)


def _load_tokenizer(source: str, role: Role) -> FolderTokenizer:
    return FolderTokenizer(find_checkpoint(source, role))


def _load_chat_format(source: str, role: Role) -> ChatTemplate | None:
    return load_chat_template(find_checkpoint(source, role))


def _load_ears(source: str, role: Role) -> Hear | None:
    checkpoint = find_checkpoint(source, role)
    return load_log_mel(checkpoint) if checkpoint.is_omni else None


def _load_calibration(source: str, role: Role) -> Calibration | None:
    return calibration_of(find_checkpoint(source, role))


def _find_max_length(source: str, role: Role, settings: EngineSettings) -> int:
    checkpoint = find_checkpoint(source, role)
    return settings.limits(checkpoint.name, *checkpoint.longest_text).max_length


def _find_files(source: str, role: Role) -> list[Path]:
    return find_checkpoint(source, role).files


def _require_torch(checkpoint: Checkpoint) -> None:
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelLoadError(
            f"{checkpoint.name} needs {' and '.join(missing)}, which skydraft's torch extra brings: "
            "pip install 'skydraft[torch]'"
        )


HUGGING_FACE = ModelKind(
    includes=lambda source: True,  # what no other engine runs
    load_engine=_load_engine,
    load_tokenizer=_load_tokenizer,
    load_chat_format=_load_chat_format,
    find_max_length=_find_max_length,
    find_files=_find_files,
    load_ears=_load_ears,
    load_calibration=_load_calibration,
)
