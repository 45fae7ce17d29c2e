"""How an engine is to be loaded."""

from __future__ import annotations

import os
import re

import msgspec

from skydraft.core import check_settings
from skydraft.engines.base import EngineLimits
from skydraft.errors import ConfigError, require
from skydraft.text.checkpoint import DEFAULT_MAX_LENGTH

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
    fast_math: of a target: compute as fast as can be, even where rows are then not invariant (`base.RowPromise`).
    self_test: compare rows when the model is loaded (`engines/self_test`).
    """

    num_slots: int = 1
    max_length: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    num_threads: int = 0
    prefill_chunk: int = 512
    quantize: bool = False
    fast_math: bool = False
    self_test: bool = False

    def __post_init__(self) -> None:
        check_settings(self)
        require_place(self.device, self.dtype, self.quantize)
        require(self.num_slots >= 1, "num_slots", self.num_slots, "1 or more")
        require(self.max_length >= 0, "max_length", self.max_length, "0 or more")
        require(self.num_threads >= 0, "num_threads", self.num_threads, "0 or more")
        require(self.prefill_chunk >= 1, "prefill_chunk", self.prefill_chunk, "1 or more")

    def limits(self, name: str, most: int, reason: str) -> EngineLimits:
        """How many slots an engine has, and how many tokens each has room for.

        Args:
            name: of the model, for the error message.
            most: tokens of one sequence that the model takes.
            reason: what says so.
        Raises:
            ConfigError: max_length is more.
        """
        if self.max_length > most:
            raise ConfigError(
                f"{name} takes at most {most} tokens ({reason}) and max_length is {self.max_length}: lower it"
            )
        return EngineLimits(self.num_slots, self.max_length or min(most, DEFAULT_MAX_LENGTH))


def require_place(device: str, dtype: str, quantize: bool = False) -> None:
    """Refuse what names no place or number format, and a quantised model where none can be.

    Raises:
        ConfigError: naming the setting.
    """
    is_device = re.fullmatch(r"[a-z]+(:[0-9]+)?", device) is not None  # which of them there are, torch knows
    require(is_device, "device", repr(device), "auto, cpu, cuda, cuda:N or mps")
    require(dtype in DTYPES, "dtype", repr(dtype), f"one of {', '.join(DTYPES)}")
    if quantize:
        require(device in ("auto", "cpu"), "device", device, "cpu where quantize is on")
        require(dtype in ("auto", "float32"), "dtype", dtype, "float32 where quantize is on")


def num_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
