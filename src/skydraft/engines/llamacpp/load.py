"""From a GGUF file and settings to an engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import psutil

from skydraft.core import Prompt, TokenSegment
from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import EngineLimits, Extension
from skydraft.engines.llamacpp.engine import Floats, LlamaCppEngine
from skydraft.engines.llamacpp.file import LlamaFile, complaints, reason
from skydraft.engines.settings import EngineSettings, num_cores
from skydraft.errors import ConfigError, EngineError, ModelLoadError

NUM_BRANCHES = 64  # of a slot's tree: what one offer of a cloud's default size can need
CELLS_PAD = 256  # llama.cpp rounds the size of its cache up to a multiple of this
CELL_BYTES = 128  # what llama.cpp notes of a cell, besides keys and values
PROBE_LENGTH = 5
MAX_PROBE_DIFFERENCE = 0.1  # of the logits' norm; rounded weights make 0.01, a token that sees a wrong one 1
CACHE_TYPES = {
    "float32": llama_cpp.GGML_TYPE_F32,
    "float16": llama_cpp.GGML_TYPE_F16,
    "bfloat16": 30,  # GGML_TYPE_BF16, which the bindings leave out
}


def load_llamacpp(path: Path, settings: EngineSettings) -> LlamaCppEngine:
    """Load a GGUF file. The dtype of the settings is that of the KV cache: the file says which its weights have.

    Raises:
        ModelLoadError: llama.cpp cannot load it, or skydraft cannot run its kind of model.
        ConfigError: the settings do not fit the file or the machine.
    """
    if settings.quantize:
        raise ConfigError(
            f"quantize is for models that PyTorch runs and {path.name} has the weights that it has: "
            "leave it out, or take a GGUF file with smaller weights"
        )
    on_gpu = _uses_gpu(settings)
    file = LlamaFile(path, _model_params(settings, on_gpu))
    _require_rollback(file)
    limits = _find_limits(file, settings)
    num_sequences = min(limits.num_slots * (1 + NUM_BRANCHES), llama_cpp.llama_max_parallel_sequences())
    params = _context_params(settings, limits, num_sequences, on_gpu)
    if not on_gpu:
        _require_memory(file, params)
    context = _make_context(file, params)
    engine = LlamaCppEngine(file, context, limits, num_sequences)
    _check_trees(engine)
    return engine


def _uses_gpu(settings: EngineSettings) -> bool:
    if settings.device == "cpu":
        return False
    can_offload = bool(llama_cpp.llama_supports_gpu_offload())
    if settings.device == "auto":
        return can_offload
    if not re.fullmatch(r"cuda(:[0-9]+)?|mps", settings.device):
        raise ConfigError(f"device {settings.device!r} cannot be used here (llama.cpp knows cpu, cuda, mps): try cpu")
    if not can_offload:
        raise ConfigError(
            f"device {settings.device!r} cannot be used here (this llama-cpp-python was built for the CPU): try cpu, "
            "or build it with the device's backend"
        )
    return True


def _model_params(settings: EngineSettings, on_gpu: bool) -> Any:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = -1 if on_gpu else 0
    _, _, index = settings.device.partition(":")
    if index:
        params.split_mode = llama_cpp.LLAMA_SPLIT_MODE_NONE
        params.main_gpu = int(index)
    return params


def _context_params(settings: EngineSettings, limits: EngineLimits, num_sequences: int, on_gpu: bool) -> Any:
    params = llama_cpp.llama_context_default_params()
    num_cells = -(-limits.num_slots * limits.max_length // CELLS_PAD) * CELLS_PAD
    # All slots in one cache: a branch shares the cells of what stands before it, and any slot may fill any cell.
    params.kv_unified = True
    params.n_ctx = params.n_batch = num_cells
    params.n_ubatch = settings.prefill_chunk
    params.n_seq_max = num_sequences
    params.n_threads = params.n_threads_batch = settings.num_threads or num_cores()
    dtype = ("float16" if on_gpu else "float32") if settings.dtype == "auto" else settings.dtype
    params.type_k = params.type_v = CACHE_TYPES[dtype]
    # On a CPU its sums would depend on how the cache is cut into blocks.
    flash = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO if on_gpu else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.flash_attn_type = flash
    params.offload_kqv = params.op_offload = on_gpu
    return params


def _require_memory(file: LlamaFile, params: Any) -> None:
    """Refuse a KV cache that does not fit: llama.cpp writes to all of it when it is made, and would be killed.

    Raises:
        ModelLoadError: saying how much it takes and how much there is.
    """
    value_bytes = 4 if params.type_k == CACHE_TYPES["float32"] else 2
    needed = params.n_ctx * (file.num_cache_values * value_bytes + CELL_BYTES)
    available = psutil.virtual_memory().available
    if needed > available:
        raise ModelLoadError(
            f"{file.name} needs a KV cache of {params.n_ctx} tokens and {needed / 1e9:.1f} GB, and "
            f"{available / 1e9:.1f} GB of memory are free: use fewer or shorter slots, or a smaller dtype"
        )


def _make_context(file: LlamaFile, params: Any) -> Any:
    with complaints() as lines:
        context = llama_cpp.llama_init_from_model(file.model, params)
    if not context:
        raise ModelLoadError(
            f"llama.cpp cannot make a KV cache of {params.n_ctx} tokens for {file.name} ({reason(lines)}): use a "
            "smaller model or dtype, or fewer or shorter slots"
        )
    return context


def _require_rollback(file: LlamaFile) -> None:
    """Refuse models whose state is more than keys and values, or that do not read from left to right.

    Raises:
        ModelLoadError: naming the kind.
    """
    kinds = {
        "a recurrent model": llama_cpp.llama_model_is_recurrent,
        "a model with recurrent layers": llama_cpp.llama_model_is_hybrid,
        "a diffusion model": llama_cpp.llama_model_is_diffusion,
        "a model with an encoder": llama_cpp.llama_model_has_encoder,
    }
    found = next((kind for kind, is_kind in kinds.items() if is_kind(file.model)), None)
    if found is not None:
        raise ModelLoadError(
            f"{file.name} is {found}, which cannot be rolled back after a rejected draft: use a decoder with full "
            "attention"
        )


def _find_limits(file: LlamaFile, settings: EngineSettings) -> EngineLimits:
    """How many slots there may be, and how many tokens each has room for.

    Raises:
        ConfigError: the settings ask for more than the model or llama.cpp takes.
    """
    most_slots = llama_cpp.llama_max_parallel_sequences() - 1  # one is left for a branch
    if settings.num_slots > most_slots:
        raise ConfigError(f"llama.cpp takes at most {most_slots} slots and num_slots is {settings.num_slots}: lower it")
    most = llama_cpp.llama_model_n_ctx_train(file.model)
    return settings.limits(file.name, most, "context_length of its file")


def _check_trees(engine: LlamaCppEngine) -> None:
    """Read a short text as a tree and as a chain: models differ in what they keep of a token that was dropped.

    Raises:
        ModelLoadError: the two give other logits, or none.
    """
    if engine.limits.max_length < PROBE_LENGTH:
        return
    first, wrong, second, third = (index % engine.vocabulary.size for index in (1, 4, 2, 3))
    try:
        grown = _read(engine, first, Extension(0, [wrong, second, third], TreeShape((0, 0, 2))), [1, 2])
        plain = _read(engine, first, Extension.chain(0, [second, third]), [0, 1])
    except EngineError as error:
        raise ModelLoadError(f"skydraft cannot run {engine.name}: {error}") from error
    difference = float(np.linalg.norm(grown - plain) / np.linalg.norm(plain))
    if not difference <= MAX_PROBE_DIFFERENCE:
        raise ModelLoadError(
            f"{engine.name} gives other logits for a text that was drafted as a tree than for the text alone (they "
            f"differ by {difference:.2g} of their norm, allowed is {MAX_PROBE_DIFFERENCE:g}): skydraft cannot run this "
            "kind of model"
        )


def _read(engine: LlamaCppEngine, first: int, drafted: Extension, path: list[int]) -> Floats:
    """Logits [len(path) + 1, vocab_size] of a path through a draft after a token, and of that token again after it."""
    slot = engine.open(Prompt((TokenSegment((first,)),))).slot
    (rows,) = engine.extend([drafted._replace(slot=slot)])
    engine.keep_path(slot, 0, path)
    (last,) = engine.extend([Extension.chain(slot, [first])])
    engine.close(slot)
    return np.concatenate([rows[path], last])
