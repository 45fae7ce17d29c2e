"""Whether a model knows such voices, by statistics of the log-mel that it hears.

The model learned from a few voices that say a few sentences, and it describes any other sound with the same fluency. So
statistics of its own input are compared with those of its recordings, through rooms, telephones and noise: by a score
that tells them from the same ones backwards, shuffled, cut, joined and at other speeds, which finds people who say
something else, and by their distance from the directions in which these vary, which finds other kinds of voices
(`training/familiarity`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from skydraft.core import Familiarity, LinearScore, Subspace, TensorSegment
from skydraft.engines.log_mel import LEVELLED_NAME

Doubles: TypeAlias = npt.NDArray[np.float64]

DB_PER_UNIT = 40.0  # of log-mel
ACTIVE_DB = 27.0  # below the loudest frame: what is quieter at both ends is no speech
SMOOTHED_FRAMES = 5
NUM_CEPSTRA, NUM_SHAPE = 20, 13  # all; those that say most of which sounds follow which
NUM_PARTS = 8
LAGS = (2, 5, 10, 20, 40)  # frames
PERCENTILES = (5, 25, 75, 95)
NUM_SPREAD = 260  # of the statistics, those that are no course
CUT = 6.0  # of a standardised statistic


def is_familiar(features: TensorSegment, familiarity: Familiarity) -> bool:
    """Whether a sound is like those that a model was trained on.

    Args:
        features: levelled log-mel in int8 [num_mel_bins, num_frames].
    Raises:
        ValueError: they are other features, or the familiarity is of other statistics.
    """
    if features.name != LEVELLED_NAME:
        raise ValueError(f"familiarity is of {LEVELLED_NAME}, and the features are {features.name}")
    steps = np.frombuffer(features.data, np.int8).reshape(features.shape).T
    values = statistics(steps.astype(np.float64) / familiarity.steps_per_unit)
    is_near = distance(values, familiarity.subspace) <= familiarity.subspace.limit
    return is_near and score(values, familiarity.score) >= 0


def score(values: Doubles, by: LinearScore) -> float:
    """Of the statistics [num_statistics] of a sound.

    Raises:
        ValueError: they are not those that the score is of.
    """
    if len(values) != len(by.weights):
        raise ValueError(f"a score of {len(by.weights)} statistics was given {len(values)}")
    standard = ((values - np.array(by.centre)) / np.array(by.scale)).clip(-CUT, CUT)
    return float(standard @ np.array(by.weights)) + by.offset


def distance(values: Doubles, subspace: Subspace) -> float:
    """How far from a subspace a sound lies: the mean square of what is left of its first statistics, standardised."""
    centre = np.array(subspace.centre)
    standard = (values[: len(centre)] - centre) / np.array(subspace.scale)
    along = np.array(subspace.directions) @ standard
    return float((standard @ standard - along @ along) / len(centre))


def statistics(mel: Doubles) -> Doubles:
    """How the cepstra of the speech are spread (the first 260), go on and come after each other.

    Args:
        mel: levelled log-mel [num_frames, num_mel_bins].
    Returns:
        float64 [num_statistics], as many for every sound of at least 3 frames.
    """
    speech = mel[_active(mel)]
    cepstra = speech @ _cosines(mel.shape[1]).T
    shape = (cepstra - cepstra.mean(axis=0))[:, :NUM_SHAPE]
    upper = np.triu_indices(NUM_SHAPE)
    return np.concatenate(
        [
            _spread(cepstra),
            _spread(np.diff(cepstra, axis=0)),
            speech.mean(axis=0)[::4],
            *[shape[part].mean(axis=0) for part in _parts(len(shape))],
            *[_correlation(shape, lag) for lag in LAGS],
            (shape.T @ shape / len(shape))[upper],
        ]
    )


def _active(mel: Doubles) -> slice:
    """From the first to the last frame that is loud; at least three."""
    level_db = 10 * np.log10(np.power(10.0, 4 * mel).sum(axis=1) + 1e-9)
    smooth_db = np.convolve(level_db, np.ones(SMOOTHED_FRAMES) / SMOOTHED_FRAMES, "same")
    loud = np.flatnonzero(smooth_db > smooth_db.max() - ACTIVE_DB)
    first = min(int(loud[0]), max(0, len(mel) - 3))
    return slice(first, max(int(loud[-1]) + 1, first + 3))


def _cosines(num_mel_bins: int) -> Doubles:
    """The orthonormal DCT-II: [num_cepstra, num_mel_bins]."""
    angles = np.pi / num_mel_bins * (np.arange(num_mel_bins) + 0.5) * np.arange(NUM_CEPSTRA)[:, None]
    cosines: Doubles = np.cos(angles) * np.sqrt(2 / num_mel_bins)
    cosines[0] /= np.sqrt(2)
    return cosines


def _spread(rows: Doubles) -> Doubles:
    return np.concatenate([rows.mean(axis=0), rows.std(axis=0), np.percentile(rows, PERCENTILES, axis=0).ravel()])


def _parts(num_frames: int) -> list[slice]:
    """Even parts of the speech, each of at least one frame."""
    edges = np.linspace(0, num_frames, NUM_PARTS + 1).astype(int)
    return [slice(first, max(end, first + 1)) for first, end in pairwise(edges.tolist())]


def _correlation(rows: Doubles, lag: int) -> Doubles:
    """Of each column with itself `lag` frames later."""
    energy = np.square(rows).sum(axis=0) + 1e-6
    correlation: Doubles = (rows[lag:] * rows[:-lag]).sum(axis=0) / energy
    return correlation
