"""What a machine can draft with: from its facts to a tier, a model to draft with, and its part of the work."""

from __future__ import annotations

import enum
from dataclasses import dataclass

# A step of batch 1 reads every weight once, so it takes the bytes of the weights over the memory's bandwidth, and what
# Python and torch take to start a layer's operations: measured with small models, about 1 ms a layer.
LAYER_OVERHEAD_S = 0.001
# Twice as fast as people read (policies.strategy): a block and the round that judges it then still keep up with them.
LEAST_DRAFT_TOKENS_PER_S = 10.0
# The other half is for the KV cache, activations and everything else that runs on a device.
MEMORY_SHARE = 0.5


class Tier(enum.StrEnum):
    """What kind of device it is, by what it can draft with."""

    THIN = "thin"  # with nothing in time
    PHONE = "phone"  # less than 10**9 parameters
    LAPTOP = "laptop"  # 1 to 4 * 10**9
    WORKSTATION = "workstation"  # more


# What is left to it of the work. Models of some 10**9 parameters write texts that do when the cloud is away; those of
# several are what others run in a cloud.
WORK = {
    Tier.THIN: "leave the writing to the cloud (--mode cloud)",
    Tier.PHONE: "draft, and have the cloud judge every block (--mode hybrid)",
    Tier.LAPTOP: "draft for the cloud, and go on alone when it is away (--offline edge)",
    Tier.WORKSTATION: "write alone where privacy or cost matter (--mode edge), else draft for a larger cloud",
}


@dataclass(frozen=True)
class Capacity:
    """What drafting is limited by, of the processor or of the accelerator, whichever would draft.

    memory_bytes_per_s: measured while a matrix is multiplied by a vector, as in a step.
    free_memory_bytes: for weights and caches.
    """

    memory_bytes_per_s: float
    free_memory_bytes: int
    is_accelerator: bool = False
    is_on_battery: bool = False


@dataclass(frozen=True)
class Precision:
    """How weights are kept. flags: of the command line."""

    name: str
    num_bytes: int
    flags: str


@dataclass(frozen=True)
class Size:
    """A model to draft with: an example of its size. Numbers from its card."""

    example: str
    num_params: int
    num_layers: int


SIZES = (
    Size("SmolLM2-135M", 135_000_000, 30),
    Size("Qwen2.5-0.5B", 494_000_000, 24),
    Size("Qwen2.5-1.5B", 1_540_000_000, 28),
    Size("Qwen2.5-3B", 3_090_000_000, 36),
    Size("Qwen2.5-7B", 7_610_000_000, 28),
)
# Processors compute in float32, or in rounded weights; few are faster with bfloat16. Most precise first.
_ON_CPU = (Precision("float32", 4, "--dtype float32"), Precision("8 bits", 1, "--quantize"))
_ON_ACCELERATOR = (Precision("bfloat16", 2, "--dtype bfloat16"),)


@dataclass(frozen=True)
class Proposal:
    """What a device should draft with.

    size, precision, tokens_per_s: None in tier thin. tokens_per_s: estimated, of drafting one text.
    work: its part of the work. reason: a sentence. Both for a person.
    """

    tier: Tier
    size: Size | None
    precision: Precision | None
    tokens_per_s: float | None
    work: str
    reason: str


def propose(capacity: Capacity) -> Proposal:
    """The largest model that drafts in time, in the most precise form in which it does; on battery one size smaller."""
    fitting = [(size, precision) for size in SIZES if (precision := _precision(size, capacity)) is not None]
    if not fitting:
        return _thin(capacity)
    is_spared = capacity.is_on_battery and len(fitting) > 1
    size, precision = fitting[-2 if is_spared else -1]
    speed = draft_tokens_per_s(size, precision, capacity)
    reason = f"{_speed(capacity)} gives {size.example} in {precision.name} about {speed:.0f} tokens/s"
    if is_spared:
        reason += "; a larger one would do, and this one spares the battery"
    tier = _tier(size)
    return Proposal(tier, size, precision, speed, WORK[tier], reason)


def draft_tokens_per_s(size: Size, precision: Precision, capacity: Capacity) -> float:
    """An estimate for one text on an idle machine."""
    read_s = size.num_params * precision.num_bytes / capacity.memory_bytes_per_s
    return 1 / (read_s + size.num_layers * LAYER_OVERHEAD_S)


def _precision(size: Size, capacity: Capacity) -> Precision | None:
    """The most precise form in which a size fits the memory and the time."""
    for precision in _ON_ACCELERATOR if capacity.is_accelerator else _ON_CPU:
        fits = size.num_params * precision.num_bytes <= capacity.free_memory_bytes * MEMORY_SHARE
        if fits and draft_tokens_per_s(size, precision, capacity) >= LEAST_DRAFT_TOKENS_PER_S:
            return precision
    return None


def _thin(capacity: Capacity) -> Proposal:
    smallest = SIZES[0]
    reason = (
        f"{_speed(capacity)} and {capacity.free_memory_bytes / 1e9:.1f} GB of free memory do not give even "
        f"{smallest.example} {LEAST_DRAFT_TOKENS_PER_S:.0f} tokens/s, and slower drafts only hold the cloud up"
    )
    return Proposal(Tier.THIN, None, None, None, WORK[Tier.THIN], reason)


def _speed(capacity: Capacity) -> str:
    return f"memory read at {capacity.memory_bytes_per_s / 1e9:.1f} GB/s"


def _tier(size: Size) -> Tier:
    if size.num_params < 10**9:
        return Tier.PHONE
    return Tier.LAPTOP if size.num_params < 4 * 10**9 else Tier.WORKSTATION
