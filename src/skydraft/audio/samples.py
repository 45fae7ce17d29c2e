"""Samples: mono float32 at 16 kHz, full scale 1."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Samples: TypeAlias = npt.NDArray[np.float32]

SAMPLE_RATE_HZ = 16_000
SILENCE_DBFS = -60.0


def swing(samples: Samples) -> float:
    """Half the range of the samples: their peak without a constant offset."""
    return float(np.ptp(samples)) / 2


def dbfs(magnitude: float) -> float:
    """Decibels below full scale; digital zero counts as -120."""
    return 20 * float(np.log10(max(magnitude, 1e-6)))


def is_silent(samples: Samples) -> bool:
    """Whether float [num_samples] has no sound above -60 dBFS."""
    return dbfs(swing(samples)) < SILENCE_DBFS
