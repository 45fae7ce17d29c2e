"""From a model's name and settings to an engine on vLLM."""

from __future__ import annotations

import os
import warnings
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import torch

from skydraft.engines.base import EngineLimits, RowPromise
from skydraft.engines.external.sources import VllmSource, VllmSpec
from skydraft.engines.external.text_engine import TextEngine, TextQuestion
from skydraft.engines.external.vllm import VllmReader
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ConfigError, ModelLoadError, first_line
from skydraft.text.checkpoint import (
    Checkpoint,
    Role,
    custom_code,
    find_checkpoint,
    is_custom,
    require_rollback,
    require_safe_files,
)
from skydraft.text.tokenizer import FolderTokenizer

CPU_BLOCK_SIZE = 32  # tokens; vLLM's own choice on a CPU is 128, of which a round would compute up to 127 again
SPARE_CACHE = 1.25  # of the cache on a CPU: drafts take blocks beside the slots' logs
ROW_PROMISE = RowPromise(
    False, "vLLM computes one row with other kernels than several; VLLM_BATCH_INVARIANT=1 guards only what is batched"
)
PROBE = (1, 2, 3, 1, 2)
MAX_PROBE_DIFFERENCE = 0.05  # of the logits' norm; rows of other tokens differ by about 1


def load_vllm(source: VllmSource, role: Role, settings: EngineSettings) -> TextEngine:
    """Load a folder or a Hugging Face name into vLLM.

    A slot has room for one token less than the settings say: vLLM keeps it for the one that a request generates.

    Raises:
        ModelLoadError: vLLM is missing, there is no such model, or vLLM cannot load it.
        ConfigError: the settings do not fit this vLLM.
    """
    if settings.quantize:
        raise ConfigError(
            f"quantize is for models that PyTorch runs on a CPU and {source.model} is for vLLM: leave it out, or "
            "take a model whose weights are quantised"
        )
    checkpoint = find_checkpoint(source.model, role)
    require_rollback(checkpoint)
    require_safe_files(checkpoint)
    vocabulary = FolderTokenizer(checkpoint).vocabulary
    limits = settings.limits(checkpoint.name, *checkpoint.longest_text)
    limits = limits._replace(max_length=limits.max_length - 1)
    vllm = _import_vllm()
    arguments = _arguments(source.spec, checkpoint, limits, settings)
    if _is_on_cpu(settings):
        arguments |= _cpu_arguments(checkpoint, limits, settings)
    with warnings.catch_warnings(action="ignore"):
        try:
            llm = vllm.LLM(**arguments)
        except Exception as error:  # it raises many kinds for models, settings and machines that do not fit
            if is_custom(checkpoint) and "trust_remote_code" in str(error):
                raise custom_code(checkpoint) from error
            raise ModelLoadError(f"vLLM cannot load {checkpoint.name}: {first_line(error)}") from error
        reader = VllmReader(vllm, llm, vocabulary.size, checkpoint.name)
        _check_rows(reader)
    return TextEngine(reader, vocabulary, limits, ROW_PROMISE)


def _check_rows(reader: VllmReader) -> None:
    """Compare the two ways to ask: versions of vLLM differ in where they list a token's logits.

    Raises:
        ModelLoadError: they do not agree.
    """
    chain = TextQuestion(PROBE, 3, 1)
    ways = reader.read([chain]), reader.read([chain._replace(num_logits=None)])
    (narrow,), (whole,) = ways
    is_listed = np.isfinite(narrow)
    difference = float(np.linalg.norm((narrow - whole)[is_listed]) / np.linalg.norm(whole[is_listed]))
    if not difference <= MAX_PROBE_DIFFERENCE:
        raise ModelLoadError(
            "this version of vLLM gives other logits for tokens of a prompt than for the one after it (they differ by "
            f"{difference:.2g} of their norm, allowed is {MAX_PROBE_DIFFERENCE:g}): use vLLM 0.32"
        )


def _import_vllm() -> ModuleType:
    # Both are read when vLLM is imported. One process: the rows of logits are large, and nothing is left running.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        with warnings.catch_warnings(action="ignore"):
            import vllm

            _ = vllm.LLM, vllm.SamplingParams, vllm.TokensPrompt  # it imports what it is made of when first asked
    except Exception as error:  # its compiled parts, and packages that it finds beside it, fail in many ways
        raise ModelLoadError(f"vLLM is installed and cannot be imported: {first_line(error)}") from error
    module: ModuleType = vllm
    return module


def _is_on_cpu(settings: EngineSettings) -> bool:
    """Whether this build computes on a CPU.

    Raises:
        ConfigError: the settings ask for another device.
    """
    from vllm.platforms import current_platform

    built_for = str(current_platform.device_type)
    if settings.device not in ("auto", built_for):
        raise ConfigError(
            f"device is {settings.device!r} and this vLLM computes on {built_for}: use device {built_for}"
            + ("" if built_for == "cpu" else ", and choose among several with CUDA_VISIBLE_DEVICES")
        )
    return built_for == "cpu"


def _arguments(
    spec: VllmSpec, checkpoint: Checkpoint, limits: EngineLimits, settings: EngineSettings
) -> dict[str, Any]:
    return {
        "model": str(checkpoint.folder),
        "dtype": settings.dtype,
        "max_model_len": limits.max_length + 1,
        "enable_prefix_caching": True,
        "max_logprobs": -1,
        "logprobs_mode": "raw_logits",
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "trust_remote_code": False,
        **msgspec.structs.asdict(spec),
    }


def _cpu_arguments(checkpoint: Checkpoint, limits: EngineLimits, settings: EngineSettings) -> dict[str, Any]:
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    dtype = "float32" if settings.dtype == "auto" else settings.dtype
    config = checkpoint.text_config
    num_heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // num_heads
    numbers_per_token = 2 * config["num_hidden_layers"] * config.get("num_key_value_heads", num_heads) * head_dim
    tokens = limits.num_slots * (limits.max_length + CPU_BLOCK_SIZE)
    num_bytes = int(SPARE_CACHE * tokens * numbers_per_token * getattr(torch, dtype).itemsize)
    return {
        "dtype": dtype,
        "block_size": CPU_BLOCK_SIZE,
        "kv_cache_memory_bytes": num_bytes,  # else it takes most of the machine's memory
        "enforce_eager": True,  # compiling takes minutes and a compiler
    }
