"""From a GGUF file and settings to an engine."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import psutil

from skydraft.core import Prompt, TokenSegment
from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import EngineLimits, Extension, RowPromise
from skydraft.engines.llamacpp.branches import BranchBook
from skydraft.engines.llamacpp.cache import Floats, LlamaCache
from skydraft.engines.llamacpp.engine import Invariance, LlamaCppEngine
from skydraft.engines.llamacpp.file import LlamaFile, complaints, reason
from skydraft.engines.settings import EngineSettings, num_cores
from skydraft.engines.slots import Placement, SlotTree
from skydraft.errors import ConfigError, EngineError, ModelLoadError
from skydraft.text.checkpoint import Role

NUM_BRANCHES = 64  # of a slot's tree: what one offer of a cloud's default size can need
NUM_HELD = 256  # cells of rejected nodes that a slot's cache has room for, until its text is written anew
PROMPT_CHUNK = 64  # tokens that are read together, and shared by prompts; longer pieces are hardly faster
MAX_ROWS = 3  # of texts and trees in a pass of an invariant engine
TESTED_MACHINES = ("x86_64", "amd64")
CELLS_PAD = 256  # llama.cpp rounds the size of its cache up to a multiple of this
CELL_BYTES = 128  # what llama.cpp notes of a cell, besides keys and values
PROBE_LENGTH = 5
MAX_PROBE_DIFFERENCE = 0.1  # of the logits' norm; rounded weights make 0.01, a token that sees a wrong one 1
CACHE_TYPES = {
    "float32": llama_cpp.GGML_TYPE_F32,
    "float16": llama_cpp.GGML_TYPE_F16,
    "bfloat16": 30,  # GGML_TYPE_BF16, which the bindings leave out
}


def load_llamacpp(path: Path, role: Role, settings: EngineSettings) -> LlamaCppEngine:
    """Load a GGUF file.

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
    if role == "target" and not settings.fast_math and not on_gpu:
        engine = _invariant_engine(file, limits, settings)
    else:
        engine = _fast_engine(file, limits, settings, on_gpu)
    _check_trees(engine)
    return engine


def _fast_engine(file: LlamaFile, limits: EngineLimits, settings: EngineSettings, on_gpu: bool) -> LlamaCppEngine:
    """All slots in one cache: a pass reads the tokens of all of them."""
    num_sequences = min(limits.num_slots * (1 + NUM_BRANCHES) + 1, llama_cpp.llama_max_parallel_sequences())
    params = _context_params(settings, limits.num_slots * limits.max_length, num_sequences)
    dtype = ("float16" if on_gpu else "float32") if settings.dtype == "auto" else settings.dtype
    params.type_k = params.type_v = CACHE_TYPES[dtype]
    # On a CPU its sums would depend on how the cache is cut into blocks.
    flash = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO if on_gpu else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.flash_attn_type = flash
    params.offload_kqv = params.op_offload = on_gpu
    if not on_gpu:
        _require_memory(file, params)
    scratch = num_sequences - 1
    cache = LlamaCache(file, _make_context(file, params), BranchBook(limits.num_slots, scratch), scratch)
    promise = RowPromise(False, "llama.cpp computes rows with other kernels when there are more of them")
    return LlamaCppEngine(file.vocabulary, [cache], limits, promise)


def _invariant_engine(file: LlamaFile, limits: EngineLimits, settings: EngineSettings) -> LlamaCppEngine:
    """A cache for each slot, and in it passes and sums that are the same whatever else is read.

    The causes, and what mends each (docs/engines.md has the measurements):

    1. Without flash attention, llamafile's kernels multiply scores and values from 2 rows on: with it they do not.
    2. Flash attention of 64 rows or more goes by tiles, and one row after 512 cells is split among threads, where keys
       and values have one type: they have two here.
    3. Repacked weights have another kernel from 4 rows on, K-quants from 8: texts and trees are read in passes of at
       most 3, or fewer where this model's rows differ (float weights: llamafile has another kernel from 2 rows on).
       A prompt is read in the same pieces from its start.
    4. A sum runs over a text's cells in their order, and cells that rejected nodes or another slot left in between
       would be filled by later tokens: each slot has its own cache, which holds them (`BranchBook`).
    """
    num_sequences = 1 + NUM_BRANCHES
    prompt_chunk = min(settings.prefill_chunk, PROMPT_CHUNK)
    params = _context_params(settings, limits.max_length + NUM_HELD, num_sequences + 2)
    params.n_ubatch = prompt_chunk
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    params.type_k, params.type_v = CACHE_TYPES["float16"], CACHE_TYPES["bfloat16"]
    params.offload_kqv = params.op_offload = False
    _require_memory(file, params, limits.num_slots)
    caches = [
        LlamaCache(
            file,
            _make_context(file, params),
            BranchBook(1, num_sequences, holds_rejected=True),
            scratch=num_sequences + 1,
        )
        for _ in range(limits.num_slots)
    ]
    invariance = Invariance(_find_max_rows(caches[0], file), prompt_chunk)
    reason = (
        f"each slot has its own cache, rows are read at most {invariance.max_rows} at a time, and prompts in the same "
        f"pieces of at most {invariance.prompt_chunk}"
    )
    if platform.machine().lower() in TESTED_MACHINES:
        promise = RowPromise(True, reason)
    else:
        promise = RowPromise(False, f"llama.cpp was not tested on {platform.machine()}")
    return LlamaCppEngine(file.vocabulary, caches, limits, promise, invariance)


def _find_max_rows(cache: LlamaCache, file: LlamaFile) -> int:
    """How many rows a pass may have: as many as give the bits of one by one.

    One with experts: what routes tokens to them are float weights, whose other kernel from 2 rows on changes few bits.

    Raises:
        ModelLoadError: the model gives no logits.
    """
    if file.has_experts:
        return 1
    size = llama_cpp.llama_vocab_n_tokens(file.vocab)
    token_ids = [index % size for index in range(1, PROBE_LENGTH + 1)]
    text = Placement(0, token_ids, 0, SlotTree(0, TreeShape.chain(PROBE_LENGTH)), PROBE_LENGTH)
    one_by_one = b""
    for num_rows in range(1, MAX_ROWS + 1):
        try:
            (rows,) = cache.read([text], num_rows)
        except EngineError as error:
            raise ModelLoadError(f"skydraft cannot run {file.name}: {error}") from error
        cache.undo()
        one_by_one = one_by_one or rows.tobytes()
        if rows.tobytes() != one_by_one:
            return num_rows - 1
    return MAX_ROWS


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
    if not on_gpu:
        params.use_extra_bufts = not _is_built_for_amx()
    _, _, index = settings.device.partition(":")
    if index:
        params.split_mode = llama_cpp.LLAMA_SPLIT_MODE_NONE
        params.main_gpu = int(index)
    return params


def _is_built_for_amx() -> bool:
    """Whether llama.cpp would multiply by AMX tiles.

    Compiled by GCC 12 it sets them up wrongly, and the process dies by an illegal instruction; and what one row gives
    beside others was not tested with them. Without them repacked weights are lost too: a build without AMX is faster.
    """
    return b"AMX_INT8 = 1" in llama_cpp.llama_print_system_info()


def _context_params(settings: EngineSettings, num_cells: int, num_sequences: int) -> Any:
    params = llama_cpp.llama_context_default_params()
    # All sequences in one cache: a branch shares the cells of what stands before it, and any may fill any cell.
    params.kv_unified = True
    params.n_ctx = params.n_batch = -(-num_cells // CELLS_PAD) * CELLS_PAD
    params.n_ubatch = settings.prefill_chunk
    params.n_seq_max = num_sequences
    params.n_threads = params.n_threads_batch = settings.num_threads or num_cores()
    return params


def _require_memory(file: LlamaFile, params: Any, num_caches: int = 1) -> None:
    """Refuse KV caches that do not fit: llama.cpp writes to all of them when they are made, and would be killed.

    Raises:
        ModelLoadError: saying how much it takes and how much there is.
    """
    value_bytes = 4 if params.type_k == CACHE_TYPES["float32"] else 2
    cache_bytes = params.n_ctx * (file.num_cache_values * value_bytes + CELL_BYTES)
    output_bytes = 4 * params.n_seq_max * llama_cpp.llama_vocab_n_tokens(file.vocab)  # a row for each sequence
    needed = num_caches * (cache_bytes + output_bytes)
    available = psutil.virtual_memory().available
    smaller = ", or a smaller dtype" if value_bytes == 4 else ""
    if needed > available:
        raise ModelLoadError(
            f"{file.name} needs a KV cache of {num_caches * params.n_ctx} tokens and {needed / 1e9:.1f} GB, and "
            f"{available / 1e9:.1f} GB of memory are free: use fewer or shorter slots{smaller}"
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
    most_slots = llama_cpp.llama_max_parallel_sequences() - 2  # one is left for a branch, one for pieces of texts
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
