"""How unsure a draft model is as a rule: what makes a threshold of a rate at which texts are to be escalated."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

from skydraft.errors import ConfigError

CALIBRATION_FILE = "calibration.json"  # in a model's folder
Quantiles = Annotated[tuple[float, ...], Meta(min_length=2)]


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one draft model.

    By texts and not by blocks: the worst token of a text does not depend on how long blocks are, and it is whole texts
    whose evidence leaves or stays.

    material: what it wrote about, for people; nothing that it was trained on.
    num_texts: that it wrote.
    weights: a digest of the model's files, to tell when they are others.
    quantiles: for each signal of a gate, quantiles at even distances from 0 to 1, in rising order, of what the signal
        is at its worst in a text.
    """

    material: str
    num_texts: int
    weights: str
    quantiles: dict[str, Quantiles]

    def __post_init__(self) -> None:
        for signal, values in self.quantiles.items():
            if any(low > high for low, high in pairwise(values)):
                raise ConfigError(f"the quantiles of {signal} fall: {list(values)} must be in rising order")

    def quantile(self, signal: str, share: float) -> float:
        """The value below which the worst of a text is in this share of the texts.

        Args:
            signal: the name of a gate without its threshold.
            share: 0 to 1.
        Raises:
            ConfigError: the signal was not calibrated.
        """
        if signal not in self.quantiles:
            raise ConfigError(f"{signal} is not calibrated; known are {', '.join(self.quantiles)}")
        values = self.quantiles[signal]
        place = share * (len(values) - 1)
        index = min(int(place), len(values) - 2)
        return values[index] + (place - index) * (values[index + 1] - values[index])


def read_calibration(data: bytes) -> Calibration:
    """Read a calibration file.

    Raises:
        ConfigError: it is none.
    """
    try:
        return msgspec.json.decode(data, type=Calibration)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # ValidationError is one; so is what __post_init__ says
        raise ConfigError(f"this is no calibration file: {error}") from error
