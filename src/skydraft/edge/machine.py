"""What this machine is, and how fast."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil

from skydraft.engines.accelerator import Accelerator, find_accelerator, memory_bytes_per_s
from skydraft.engines.settings import num_cores
from skydraft.policies.tiers import Capacity
from skydraft.sampling.kernel import kernel

# Larger than the caches of most processors, which would be measured otherwise, and made in a fraction of a second.
MATRIX_BYTES = 2**27
NUM_COLUMNS = 4096
MATMUL_SIZE = 1024
LOOK_S = 0.3
MEASURE_S = 0.4  # of each of the two measurements


@dataclass(frozen=True)
class Machine:
    """Facts of a machine.

    system: kind and architecture. num_cores: that this process may use. busy_share: of them, before it measured.
    memory_bytes, free_memory_bytes: of the processor; free is what can be had without swapping.
    battery_share: 0 to 1; None: there is no battery. is_plugged: it is being charged, or there is none.
    has_kernel: guesses and choices are compiled.
    """

    system: str
    num_cores: int
    busy_share: float
    memory_bytes: int
    free_memory_bytes: int
    battery_share: float | None
    is_plugged: bool
    accelerator: Accelerator | None
    has_kernel: bool = True


@dataclass(frozen=True)
class Speed:
    """Measured on an otherwise idle machine this is what it can; on a busy one what is left.

    memory_bytes_per_s: that a float32 matrix times a vector reads, as in a drafting step.
    matmul_s: of two float32 matrices of 1024 x 1024, as in reading a prompt.
    accelerator_bytes_per_s: as the first, in bfloat16; None without an accelerator.
    """

    memory_bytes_per_s: float
    matmul_s: float
    accelerator_bytes_per_s: float | None


def look_at_machine() -> Machine:
    """Gather the facts of this machine."""
    memory = psutil.virtual_memory()
    battery_share, is_plugged = look_at_battery()
    return Machine(
        system=f"{platform.system()} {platform.machine()}".strip(),
        num_cores=num_cores(),
        busy_share=psutil.cpu_percent(LOOK_S) / 100,
        memory_bytes=memory.total,
        free_memory_bytes=memory.available,
        battery_share=battery_share,
        is_plugged=is_plugged,
        accelerator=find_accelerator(),
        has_kernel=kernel() is not None,
    )


def measure_speed(machine: Machine) -> Speed:
    """Measure for about a second."""
    accelerator = machine.accelerator
    tall = np.ones((MATRIX_BYTES // 4 // NUM_COLUMNS, NUM_COLUMNS), np.float32)
    vector = np.ones(NUM_COLUMNS, np.float32)
    square = np.ones((MATMUL_SIZE, MATMUL_SIZE), np.float32)
    return Speed(
        memory_bytes_per_s=tall.nbytes / _shortest_s(lambda: tall @ vector),
        matmul_s=_shortest_s(lambda: square @ square),
        accelerator_bytes_per_s=None if accelerator is None else memory_bytes_per_s(accelerator.device),
    )


def drafting_capacity(machine: Machine, speed: Speed) -> Capacity:
    """What limits a draft model here: of the accelerator where there is one."""
    is_on_battery = machine.battery_share is not None and not machine.is_plugged
    accelerator = machine.accelerator
    if accelerator is None or speed.accelerator_bytes_per_s is None:
        return Capacity(speed.memory_bytes_per_s, machine.free_memory_bytes, is_on_battery=is_on_battery)
    free_bytes = accelerator.free_memory_bytes
    return Capacity(
        speed.accelerator_bytes_per_s,
        machine.free_memory_bytes if free_bytes is None else free_bytes,
        is_accelerator=True,
        is_on_battery=is_on_battery,
    )


def look_at_battery() -> tuple[float | None, bool]:
    """Its share, and whether it is being charged. None and True where there is none."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None:
        return None, True
    return min(max(battery.percent / 100, 0.0), 1.0), bool(battery.power_plugged)


def _shortest_s(call: Callable[[], object]) -> float:
    """The shortest of as many calls as fit in the time, two at least: other work only ever makes one longer."""
    end_s, times_s = time.perf_counter() + MEASURE_S, list[float]()
    while len(times_s) < 2 or time.perf_counter() < end_s:
        start_s = time.perf_counter()
        call()
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)
