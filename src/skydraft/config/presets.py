"""Settings of a device under a name."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from skydraft.core import Rank
from skydraft.policies.gate import EntropyGate


class Preset(enum.StrEnum):
    """The names."""

    UGSD = "ugsd"


# Of settings that are None where nothing is said. Blocks that adapt, as UGSD has them, are the default.
PRESETS: Mapping[Preset, Mapping[str, str]] = MappingProxyType(
    {Preset.UGSD: MappingProxyType({"accept": str(Rank(20)), "gate": str(EntropyGate(2.5))})}
)
