"""What the audio tower is taught besides captions: heads that read its tokens, and their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from training.batches import Batch
from training.clips import EMOTIONS
from training.whisper import WIDTH as WHISPER_WIDTH


@dataclass(frozen=True)
class Weights:
    """Of the heads' losses beside that of the emotion."""

    facts: float = 0.2
    frame: float = 1.0
    statistics: float = 0.0
    heard: float = 0.0


class Readings(NamedTuple):
    """What the heads say."""

    emotion: torch.Tensor  # float [num_clips, 8], logits
    facts: torch.Tensor  # float [num_clips, 3], logits of strong, female, statement
    statistics: torch.Tensor  # float [num_clips, num_statistics]
    frame: torch.Tensor  # float [total_tokens, 3], pitch in octaves, voicing logit, level
    heard: torch.Tensor  # float [total_tokens, 512], what Whisper's layers hear there, standardised


class Heads(nn.Module):
    """Small readers of the mean audio token, which a text model's attention finds without effort; thrown away later."""

    def __init__(self, width: int, num_statistics: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout))
        self.emotion = nn.Linear(2 * width, len(EMOTIONS))
        self.facts = nn.Linear(2 * width, 3)
        self.statistics = nn.Linear(width, num_statistics)
        self.frame = nn.Linear(width, 3)
        self.heard = nn.Linear(width, WHISPER_WIDTH)

    def forward(self, tokens: torch.Tensor, num_tokens: torch.Tensor) -> Readings:
        """Read tokens [total_tokens, width] of clips that have num_tokens [num_clips] each."""
        padded = nn.utils.rnn.pad_sequence(list(torch.split(tokens, num_tokens.tolist())), batch_first=True)
        mean = self.norm(padded.sum(dim=1) / num_tokens[:, None])
        hidden = self.hidden(mean)
        return Readings(
            self.emotion(hidden), self.facts(hidden), self.statistics(mean), self.frame(tokens), self.heard(tokens)
        )


def loss(readings: Readings, batch: Batch, standard_heard: torch.Tensor, weights: Weights) -> torch.Tensor:
    """The weighted sum of all the heads' losses: a scalar."""
    total = -(batch.emotion * readings.emotion.log_softmax(-1)).sum(-1).mean()
    total = total + weights.facts * functional.binary_cross_entropy_with_logits(
        readings.facts, batch.facts * 0.9 + 0.05
    )
    total = total + weights.frame * _frame_loss(readings.frame, batch)
    if weights.statistics:
        total = total + weights.statistics * functional.smooth_l1_loss(readings.statistics, batch.statistics)
    if weights.heard:
        total = total + weights.heard * functional.smooth_l1_loss(readings.heard, standard_heard)
    return total


def _frame_loss(frame: torch.Tensor, batch: Batch) -> torch.Tensor:
    is_voiced = (batch.pitch > 0).float()
    pitch = functional.smooth_l1_loss(frame[:, 0], batch.pitch, beta=0.1, reduction="none") * is_voiced
    voicing = functional.binary_cross_entropy_with_logits(frame[:, 1], is_voiced, reduction="none")
    level = functional.smooth_l1_loss(frame[:, 2], batch.level, beta=0.05, reduction="none")
    return (pitch + 0.2 * voicing + level).mean()
