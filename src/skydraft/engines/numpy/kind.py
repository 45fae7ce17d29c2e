"""Small Qwen2.5-Omni thinkers that NumPy runs: `embedded`, `stories`, or `numpy:FOLDER`."""

from __future__ import annotations

from pathlib import Path

from skydraft.core import Calibration
from skydraft.engines.base import Engine
from skydraft.engines.calibration import calibration_of
from skydraft.engines.log_mel import load_log_mel
from skydraft.engines.model_kind import Hear, ModelKind
from skydraft.engines.settings import EngineSettings
from skydraft.text.chat_template import ChatTemplate, load_chat_template
from skydraft.text.checkpoint import EMBEDDED, STORIES, Checkpoint, Role, find_checkpoint
from skydraft.text.tokenizer import FolderTokenizer

PREFIX = "numpy:"


def _find(source: str, role: Role) -> Checkpoint:
    return find_checkpoint(source.removeprefix(PREFIX), role)


def _load_engine(source: str, role: Role, settings: EngineSettings) -> Engine:
    from skydraft.engines.numpy.engine import load_numpy

    return load_numpy(_find(source, role), settings)


def _load_tokenizer(source: str, role: Role) -> FolderTokenizer:
    return FolderTokenizer(_find(source, role))


def _load_chat_format(source: str, role: Role) -> ChatTemplate | None:
    return load_chat_template(_find(source, role))


def _load_ears(source: str, role: Role) -> Hear | None:
    return None if source == STORIES else load_log_mel(_find(source, role))


def _load_calibration(source: str, role: Role) -> Calibration | None:
    return calibration_of(_find(source, role))


def _find_max_length(source: str, role: Role, settings: EngineSettings) -> int:
    checkpoint = _find(source, role)
    return settings.limits(checkpoint.name, *checkpoint.longest_text).max_length


def _find_files(source: str, role: Role) -> list[Path]:
    return _find(source, role).files


NUMPY = ModelKind(
    includes=lambda source: source in (EMBEDDED, STORIES) or source.startswith(PREFIX),
    load_engine=_load_engine,
    load_tokenizer=_load_tokenizer,
    load_chat_format=_load_chat_format,
    find_max_length=_find_max_length,
    find_files=_find_files,
    load_ears=_load_ears,
    load_calibration=_load_calibration,
)
