"""How an engine is to be loaded."""

from __future__ import annotations

import os
from typing import Literal

import msgspec

from skydraft.errors import ConfigError

Role = Literal["draft", "target"]
DTYPES = ("auto", "float32", "bfloat16", "float16")


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an engine is to be loaded.

    num_slots: sequences at once.
    max_length: tokens of one sequence, its prompt included; 0: what the model takes, at most 4096.
    device: "cpu", "cuda", "cuda:1", "mps"; "auto": cuda where there is one.
    dtype: of the weights and the KV cache; "auto": float32 on a CPU, what the checkpoint has elsewhere.
    num_threads: of the whole process, for work on the CPU; 0: as they are.
    prefill_chunk: prompt tokens in one forward pass.
    quantize: round a draft model's linear layers to 8 bits (CPU only).
    """

    num_slots: int = 1
    max_length: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    num_threads: int = 0
    prefill_chunk: int = 512
    quantize: bool = False

    def __post_init__(self) -> None:
        _require(self.num_slots >= 1, "num_slots", self.num_slots, "1 or more")
        _require(self.max_length >= 0, "max_length", self.max_length, "0 or more")
        _require(self.dtype in DTYPES, "dtype", self.dtype, f"one of {', '.join(DTYPES)}")
        _require(self.num_threads >= 0, "num_threads", self.num_threads, "0 or more")
        _require(self.prefill_chunk >= 1, "prefill_chunk", self.prefill_chunk, "1 or more")


def num_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value} and must be {allowed}")
