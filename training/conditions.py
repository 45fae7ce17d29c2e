"""What recordings go through: the rows of the robustness table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training import augment

Condition = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _gain(gain_db: float) -> Condition:
    return lambda samples, _: augment.add_gain(samples, gain_db)


def _noise(snr_db: float) -> Condition:
    return lambda samples, generator: augment.add_noise(samples, snr_db, generator)


PLAIN = "as recorded"
GAINS_DB = (-20, -12, 12, 20)
TELEPHONE = "telephone, u-law 8 kHz"
CONDITIONS: dict[str, Condition] = {
    PLAIN: lambda samples, _: samples,
    **{f"{gain_db:+d} dB": _gain(gain_db) for gain_db in GAINS_DB},
    TELEPHONE: lambda samples, _: augment.telephone(samples),
    "Opus 12 kbit/s": lambda samples, _: augment.opus(samples),
    "AAC 24 kbit/s": lambda samples, _: augment.aac(samples),
    "room": augment.add_room,
    "noise at 20 dB": _noise(20),
    "noise at 10 dB": _noise(10),
    "laptop": augment.laptop,
}
