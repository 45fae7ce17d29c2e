"""What the audio tower is taught besides captions: heads that read its tokens, and their losses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from training.batches import Batch
from training.clips import EMOTIONS

_STATISTICS_WEIGHT = 3.0


class Readings(NamedTuple):
    """What the heads say."""

    emotion: torch.Tensor  # float [num_clips, 8], logits
    clip: torch.Tensor  # float [num_clips, 3], logits of strong, female, statement
    statistics: torch.Tensor  # float [num_clips, num_statistics]
    frame: torch.Tensor  # float [total_tokens, 3], pitch in octaves, voicing logit, level


class Heads(nn.Module):
    """Small readers of the mean audio token, which a text model's attention finds without effort; thrown away later."""

    def __init__(self, width: int, num_statistics: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout))
        self.emotion = nn.Linear(2 * width, len(EMOTIONS))
        self.clip = nn.Linear(2 * width, 3)
        self.statistics = nn.Linear(width, num_statistics)
        self.frame = nn.Linear(width, 3)

    def forward(self, tokens: torch.Tensor, num_tokens: torch.Tensor) -> Readings:
        """Read tokens [total_tokens, width] of clips that have num_tokens [num_clips] each."""
        padded = nn.utils.rnn.pad_sequence(list(torch.split(tokens, num_tokens.tolist())), batch_first=True)
        mean = self.norm(padded.sum(dim=1) / num_tokens[:, None])
        hidden = self.hidden(mean)
        return Readings(self.emotion(hidden), self.clip(hidden), self.statistics(mean), self.frame(tokens))


def loss(readings: Readings, batch: Batch) -> torch.Tensor:
    """The weighted sum of all the heads' losses: a scalar."""
    emotion = -(batch.emotion * readings.emotion.log_softmax(-1)).sum(-1).mean()
    facts = torch.stack([batch.strong, batch.female, batch.statement], dim=1)
    clip = functional.binary_cross_entropy_with_logits(readings.clip, facts * 0.9 + 0.05, reduction="none")
    clip = (clip * batch.is_pure[:, None]).mean(0) @ torch.tensor([0.3, 0.1, 0.1])
    statistics = functional.smooth_l1_loss(readings.statistics, batch.statistics, reduction="none").mean(-1)
    return (
        emotion + clip + _STATISTICS_WEIGHT * (statistics * batch.is_pure).mean() + _frame_loss(readings.frame, batch)
    )


def _frame_loss(frame: torch.Tensor, batch: Batch) -> torch.Tensor:
    is_pure = torch.repeat_interleave(batch.is_pure, batch.num_tokens).float()
    is_voiced = (batch.pitch > 0).float()
    pitch = functional.smooth_l1_loss(frame[:, 0], batch.pitch, beta=0.1, reduction="none") * is_voiced
    voicing = functional.binary_cross_entropy_with_logits(frame[:, 1], is_voiced, reduction="none")
    level = functional.smooth_l1_loss(frame[:, 2], batch.level, beta=0.05, reduction="none")
    return ((pitch + 0.2 * voicing + level) * is_pure).sum() / (is_pure.sum() + 1)
