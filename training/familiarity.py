"""What a draft knows: what tells the recordings that it learned from from the same ones made strange, and from others.

No other corpus is needed. Speech backwards, shuffled, cut, joined or at another speed has the same voices, rooms and
microphones, so that what is left to tell them by is how the sounds of speech follow each other. And what is unlike all
of them lies off the directions in which they differ from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from msgspec import structs
from scipy.optimize import minimize

from skydraft.core import Familiarity, LinearScore, Subspace
from skydraft.engines.familiarity import CUT, NUM_SPREAD, distance, score, statistics
from skydraft.engines.log_mel import Level, LogMel
from training import augment
from training.clips import SAMPLE_RATE_HZ, Clip
from training.conditions import CONDITIONS, PLAIN, TELEPHONE

KNOWN_CONDITIONS = (PLAIN, TELEPHONE, "laptop", "noise at 20 dB")
STRANGE_CONDITIONS = (*KNOWN_CONDITIONS, "Opus 12 kbit/s", "room")
STRANGE_PER_CLIP = 2
SURE_SHARE = 0.98  # of the tune clips in all conditions together, by each of the two
NUM_DIRECTIONS = 16
PENALTY = 1e-3

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def speech_of(samples: np.ndarray) -> np.ndarray:
    """Without the silence at both ends."""
    power = np.convolve(samples**2, np.ones(800) / 800, "same")
    loud = np.flatnonzero(power > 0.002 * power.max())
    return samples[loud[0] : loud[-1] + 1]


def _shuffled(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Quarters of a second in another order."""
    length = SAMPLE_RATE_HZ // 4
    parts = speech_of(samples)[: len(speech_of(samples)) // length * length].reshape(-1, length)
    return generator.permutation(parts).ravel()


def _joined(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Two sentences without a pause, neither whole."""
    speech = speech_of(samples)
    return np.concatenate([speech[len(speech) // 3 :], speech[: generator.integers(len(speech) // 3, len(speech))]])


STRANGE: dict[str, Change] = {
    "backwards": lambda samples, _: samples[::-1],
    "shuffled": _shuffled,
    "joined": _joined,
    "half": lambda samples, _: speech_of(samples)[: len(speech_of(samples)) // 2 + 2000],
    "fast": lambda samples, _: augment.change_speed(samples, 1.35),
    "slow": lambda samples, _: augment.change_speed(samples, 0.72),
}


class Listener:
    """Statistics of recordings as a model hears them."""

    def __init__(self, log_mel: LogMel, level: Level, seed: int = 5) -> None:
        self._log_mel, self._level = log_mel, level
        self._generator = np.random.default_rng(seed)

    def known(self, clips: Sequence[Clip], conditions: Iterable[str] = KNOWN_CONDITIONS) -> np.ndarray:
        """Of clips in every condition: float64 [num_clips * num_conditions, num_statistics]."""
        conditions = list(conditions)
        return np.stack([self._statistics(clip.samples(), condition) for clip in clips for condition in conditions])

    def strange(self, clips: Sequence[Clip]) -> np.ndarray:
        """Of what was made of them, in conditions drawn at random: float64 [num_clips * 2, num_statistics]."""
        heard = []
        for clip in clips:
            for kind in self._generator.choice(list(STRANGE), STRANGE_PER_CLIP, replace=False):
                samples = STRANGE[kind](clip.samples(), self._generator).astype(np.float32)
                heard.append(self._statistics(samples, str(self._generator.choice(STRANGE_CONDITIONS))))
        return np.stack(heard)

    def _statistics(self, samples: np.ndarray, condition: str) -> np.ndarray:
        sound = self._log_mel(CONDITIONS[condition](samples, self._generator))
        steps = np.frombuffer(sound.data, np.int8).reshape(sound.shape).T
        return statistics(self._level.values(steps).astype(np.float64))


def familiarity(log_mel: LogMel, level: Level, train: Sequence[Clip], tune: Sequence[Clip]) -> Familiarity:
    """Fit score and subspace on the train clips, and set where they end by the tune clips in all `CONDITIONS`."""
    listener = Listener(log_mel, level)
    known = listener.known(train)
    found = Familiarity(level.steps_per_unit, fit_score(known, listener.strange(train)), fit_subspace(known))
    return with_limits(found, Listener(log_mel, level).known(tune, CONDITIONS))


def with_limits(found: Familiarity, values: np.ndarray) -> Familiarity:
    """Move the zero of the score and the limit of the subspace so that each lets pass `SURE_SHARE` of some sounds.

    Args:
        values: of the sounds, float64 [num_sounds, num_statistics].
    """
    scores = [score(of_sound, found.score) for of_sound in values]
    distances = [distance(of_sound, found.subspace) for of_sound in values]
    offset = found.score.offset - float(np.quantile(scores, 1 - SURE_SHARE))
    limit = float(np.quantile(distances, SURE_SHARE))
    return Familiarity(
        found.steps_per_unit,
        structs.replace(found.score, offset=round(offset, 4)),
        structs.replace(found.subspace, limit=round(limit, 4)),
    )


def fit_score(known: np.ndarray, strange: np.ndarray) -> LinearScore:
    """Logistic regression with a penalty, both kinds weighing the same; positive where a sound is known.

    Args:
        known, strange: float64 [num_sounds, num_statistics].
    """
    values = np.concatenate([known, strange])
    centre, scale = _rounded(values.mean(axis=0)), _rounded(values.std(axis=0) + 1e-6)
    standard = ((values - np.array(centre)) / np.array(scale)).clip(-CUT, CUT)
    signs = np.repeat([1.0, -1.0], [len(known), len(strange)])
    share = np.repeat([0.5 / len(known), 0.5 / len(strange)], [len(known), len(strange)])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (standard @ weights[1:] + weights[0])
        pull = -share * signs / (1 + np.exp(margins))
        gradient = np.concatenate([[pull.sum()], standard.T @ pull + 2 * PENALTY * weights[1:]])
        return float((share * np.logaddexp(0, -margins)).sum() + PENALTY * (weights[1:] ** 2).sum()), gradient

    found = minimize(loss, np.zeros(values.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return LinearScore(float(found[0]), centre, scale, _rounded(found[1:]))


def fit_subspace(known: np.ndarray) -> Subspace:
    """The directions in which known sounds, float64 [num_sounds, num_statistics], vary most."""
    values = known[:, :NUM_SPREAD]
    centre, scale = _rounded(values.mean(axis=0)), _rounded(values.std(axis=0) + 1e-6)
    _, _, directions = np.linalg.svd((values - np.array(centre)) / np.array(scale), full_matrices=False)
    return Subspace(centre, scale, tuple(map(_rounded, directions[:NUM_DIRECTIONS])), 0.0)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    """Four digits, so that the file stays small."""
    return tuple(float(f"{value:.4g}") for value in values)
