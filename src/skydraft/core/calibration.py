"""How sure a draft model may be: what was measured of it on voices that it was not trained on."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

from skydraft.errors import ConfigError

CALIBRATION_FILE = "calibration.json"  # in a model's folder
LEAST_PROBABILITY = 1e-4  # smaller ones say nothing else
Quantiles = Annotated[tuple[float, ...], Meta(min_length=2)]


class EmotionConfidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From what a draft model gives an emotion to how often it is right: logistic in the log-odds (Platt 1999).

    own: offset and slope for words that the draft wrote.
    clouds: for words that a cloud wrote that has heard the voice, as the target of the pair.
    """

    own: tuple[float, float]
    clouds: tuple[float, float]

    def of(self, probability: float, is_clouds: bool) -> float:
        """How often such a word is right, 0 to 1.

        Args:
            probability: that the draft gives the emotion, beside the others.
        """
        offset, slope = self.clouds if is_clouds else self.own
        inside = min(max(probability, LEAST_PROBABILITY), 1 - LEAST_PROBABILITY)
        return 1 / (1 + math.exp(-offset - slope * math.log(inside / (1 - inside))))


class LinearScore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What tells one kind of sounds from another: 0 or more for the one, less for the other.

    centre, scale: of each statistic of a sound; weights: of the statistics, standardised by these and cut.
    """

    offset: float
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]


class Subspace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In which directions the statistics of known sounds vary.

    centre, scale: of each statistic. directions: orthonormal, of statistics that are standardised by these.
    limit: how far from the subspace a known sound lies at most, as the mean square of what is left of a statistic.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    limit: float


class Familiarity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What tells the voices that a draft model learned from, and what they say, from all others.

    steps_per_unit: of the levelled log-mel that it is of.
    score: that it is such speech, by how its sounds follow each other.
    subspace: that it is such a voice, by how its sounds are spread.
    """

    steps_per_unit: int
    score: LinearScore
    subspace: Subspace


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one draft model.

    By texts and not by blocks: the worst token of a text does not depend on how long blocks are, and it is whole texts
    whose evidence leaves or stays.

    material: what it wrote about, for people; nothing that it was trained on.
    num_texts: that it wrote.
    weights: a digest of the model's files, to tell when they are others.
    quantiles: for each signal of a gate, quantiles at even distances from 0 to 1, in rising order, of what the signal
        is at its worst in a text.
    confidence: None: nobody has measured how often an emotion is right.
    familiarity: None: nobody knows what is strange to it.
    """

    material: str
    num_texts: int
    weights: str
    quantiles: dict[str, Quantiles]
    confidence: EmotionConfidence | None = None
    familiarity: Familiarity | None = None

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
