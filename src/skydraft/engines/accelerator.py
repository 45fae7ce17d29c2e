"""Which GPU torch finds, and how fast the memory of a device is."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass

MATRIX_BYTES = 2**28  # larger than caches
NUM_ROUNDS = 8


@dataclass(frozen=True)
class Accelerator:
    """device: as --device takes it. memory_bytes: its own, or what it shares; None where torch does not say."""

    name: str
    device: str
    memory_bytes: int | None
    free_memory_bytes: int | None


def find_accelerator() -> Accelerator | None:
    """The first GPU; None without any, or without torch."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    if torch.cuda.is_available():
        free_bytes, total_bytes = torch.cuda.mem_get_info(0)
        return Accelerator(torch.cuda.get_device_name(0), "cuda", total_bytes, free_bytes)
    if torch.backends.mps.is_available():
        return Accelerator("Apple GPU", "mps", None, None)
    return None


def memory_bytes_per_s(device: str) -> float:
    """Bytes a second that a matrix times a vector reads on a device, best of a few; needs torch and 256 MiB there."""
    import torch

    columns = 4096
    matrix = torch.ones(MATRIX_BYTES // 2 // columns, columns, dtype=torch.bfloat16, device=device)
    vector = torch.ones(columns, dtype=torch.bfloat16, device=device)
    (matrix @ vector).sum().item()  # the first call loads what it needs
    times_s = []
    for _ in range(NUM_ROUNDS):
        start_s = time.perf_counter()
        (matrix @ vector).sum().item()  # waits for the result
        times_s.append(time.perf_counter() - start_s)
    return MATRIX_BYTES / min(times_s)
