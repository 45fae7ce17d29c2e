"""A cheap teacher: statistics over time and small networks on them, each asked about actors it never met."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.fft import dct
from torch import nn
from torch.nn import functional

from training.clips import EMOTIONS, Clip
from training.features import Entry, FeatureStore

_NUM_CEPSTRA = 20
_NUM_PARTS = 6
_NUM_FOLDS = 8
_NETWORKS_PER_FOLD = 2
_OPINION_SHARE = 0.5


class Lessons(NamedTuple):
    """What the teacher tells of every cached rendering, in the store's order."""

    statistics: np.ndarray  # float32 [num_entries, num_statistics], standardised over the train split
    emotion: np.ndarray  # float32 [num_entries, 8], half the label and half the opinion of networks that never met him
    opinions: np.ndarray  # float32 [num_entries, 8]


def lessons(folder: Path, store: FeatureStore, clips: list[Clip], is_train: np.ndarray) -> Lessons:
    """Statistics and softened labels, computed once; is_train is bool [num_entries]."""
    path = folder / "lessons.npz"
    if not path.exists():
        values = np.stack([summary(store, entry) for entry in store.entries])
        mean, deviation = values[is_train].mean(0), values[is_train].std(0) + 1e-6
        standard = ((values - mean) / deviation).clip(-4, 4)
        np.savez(path, statistics=standard, opinions=opinions(standard, store.entries, clips, is_train))
    kept = np.load(path)
    statistics, said = kept["statistics"], kept["opinions"]
    labels = np.eye(len(EMOTIONS), dtype=np.float32)[[clips[e.clip_index].emotion_index for e in store.entries]]
    return Lessons(statistics, (1 - _OPINION_SHARE) * labels + _OPINION_SHARE * said, said)


def summary(store: FeatureStore, entry: Entry) -> np.ndarray:
    """Moments of what Whisper's layers hear in the speech, and statistics of the speech itself: float32 [1383]."""
    speech = slice(entry.measurement.first_frame, entry.measurement.end_frame)
    heard = store.heard(entry)[speech.start // 4 : speech.stop // 4 + 1].astype(np.float32)
    moments = [heard.mean(0), heard.std(0)]
    return np.concatenate([*moments, statistics(store.mel(entry)[speech], store.voice(entry)[speech])])


def statistics(mel: np.ndarray, voice: np.ndarray) -> np.ndarray:
    """Moments and percentiles of cepstra, pitch and level over the speech: float32 [359]."""
    pitch, level = voice[:, 0], voice[:, 1] - voice[:, 1].max()
    cepstra = dct(mel, axis=1, norm="ortho")[:, :_NUM_CEPSTRA]
    voiced = pitch[pitch > 0] if (pitch > 0).sum() > 5 else np.zeros(_NUM_PARTS, np.float32)
    movement = [np.abs(np.diff(voiced)).mean(), (pitch > 0).mean(), len(pitch) / 200]
    return np.concatenate(
        [
            _spread(cepstra),
            _spread(np.diff(cepstra, axis=0)),
            *[part.mean(0) for part in np.array_split(cepstra, 3)],
            _spread(voiced[:, None]),
            movement,
            _spread(level[:, None]),
            [part[part > 0].mean() if (part > 0).any() else 0.0 for part in np.array_split(pitch, _NUM_PARTS)],
            [part.mean() for part in np.array_split(level, _NUM_PARTS)],
            mel.mean(0)[::4],
        ]
    ).astype(np.float32)


def opinions(values: np.ndarray, entries: list[Entry], clips: list[Clip], is_train: np.ndarray) -> np.ndarray:
    """What networks that never met an entry's actor think of its emotion.

    Args:
        values: standardised statistics, float32 [num_entries, num_statistics].
        is_train: bool [num_entries]; the others are judged by the networks of all folds together.
    Returns:
        float32 [num_entries, 8], probabilities.
    """
    actors = np.array([clips[e.clip_index].actor for e in entries])
    truth = torch.tensor([clips[e.clip_index].emotion_index for e in entries])
    inputs = torch.from_numpy(values)
    total, count = np.zeros((len(entries), len(EMOTIONS)), np.float32), np.zeros((len(entries), 1), np.float32)
    for fold in range(_NUM_FOLDS):
        taught = is_train & (actors % _NUM_FOLDS != fold)
        for seed in range(_NETWORKS_PER_FOLD):
            network = _taught(inputs[taught], truth[taught], seed)
            with torch.no_grad():
                said = network(inputs[~taught]).softmax(-1).numpy()
            total[~taught] += said
            count[~taught] += 1
    return total / count


def _spread(values: np.ndarray) -> np.ndarray:
    percentiles = np.percentile(values, [5, 25, 75, 95], axis=0).ravel()
    return np.concatenate([values.mean(0), values.std(0), percentiles])


def _taught(inputs: torch.Tensor, truth: torch.Tensor, seed: int, num_epochs: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Dropout(0.3), nn.Linear(inputs.shape[1], 128), nn.GELU(), nn.Dropout(0.5), nn.Linear(128, len(EMOTIONS))
    )
    steps = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.1)
    for _ in range(num_epochs):
        for chosen in torch.split(torch.randperm(len(inputs)), 128):
            loss = functional.cross_entropy(network(inputs[chosen]), truth[chosen], label_smoothing=0.1)
            steps.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            steps.step()
    return network.eval()
