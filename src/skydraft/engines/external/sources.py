"""Where vLLM or an SGLang server finds a model: what stands behind `vllm:` and `sglang:` in a model's name."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urldefrag, urlsplit

import msgspec

from skydraft.engines.name_settings import NameSettings
from skydraft.errors import ModelLoadError

VLLM_PREFIX = "vllm:"
SGLANG_PREFIX = "sglang:"
VLLM_WHAT = "a model for vLLM (vllm:MODEL, or vllm:tensor_parallel_size=2,gpu_memory_utilization=0.8:MODEL)"


class VllmSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model's name says to vLLM, in its own words."""

    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    quantization: str | None = None


class VllmSource(NamedTuple):
    """A model for vLLM, and how to load it. model: a folder or a Hugging Face name."""

    spec: VllmSpec
    model: str


class SglangSource(NamedTuple):
    """An SGLang server, and where its model's tokenizer is.

    url: without a slash at its end.
    tokenizer: folder or Hugging Face name; empty: what the server says.
    """

    url: str
    tokenizer: str


def parse_vllm(model: str) -> VllmSource:
    """Take `vllm:MODEL` or `vllm:name=value,...:MODEL` apart.

    Raises:
        ModelLoadError: a setting is unknown or wrong, or there is no model in the name.
    """
    rest = model.removeprefix(VLLM_PREFIX)
    settings, colon, inner = rest.partition(":")
    if not colon or "=" not in settings:
        settings, inner = "", rest
    text = NameSettings(model, VLLM_WHAT)
    spec = text.read(settings, VllmSpec)
    text.require(spec.tensor_parallel_size >= 1, "tensor_parallel_size", spec.tensor_parallel_size, "1 or more")
    share = spec.gpu_memory_utilization
    text.require(0 < share <= 1, "gpu_memory_utilization", share, "above 0 and at most 1")
    text.require(bool(inner), "MODEL", repr(inner), "a folder or a Hugging Face name")
    return VllmSource(spec, inner)


def parse_sglang(model: str) -> SglangSource:
    """Take `sglang:http://host:port` or `sglang:http://host:port#TOKENIZER` apart.

    Raises:
        ModelLoadError: there is no address in the name.
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
    return SglangSource(url.rstrip("/"), tokenizer)
