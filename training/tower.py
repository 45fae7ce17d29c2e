"""What the audio tower is taught besides captions: heads that read its tokens, and their losses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from training.batches import Batch
from training.clips import EMOTIONS

_NUM_QUERIES = 2


class Readings(NamedTuple):
    """What the heads say."""

    emotion: torch.Tensor  # float [num_clips, 8], logits
    clip: torch.Tensor  # float [num_clips, 3], logits of strong, female, statement
    frame: torch.Tensor  # float [total_tokens, 3], pitch in octaves, voicing logit, level


class Heads(nn.Module):
    """Linear readers of audio tokens; thrown away after training."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Linear(width, _NUM_QUERIES)
        self.norm = nn.LayerNorm((_NUM_QUERIES + 1) * width)
        self.dropout = nn.Dropout(dropout)
        self.emotion = nn.Linear((_NUM_QUERIES + 1) * width, len(EMOTIONS))
        self.clip = nn.Linear((_NUM_QUERIES + 1) * width, 3)
        self.frame = nn.Linear(width, 3)

    def forward(self, tokens: torch.Tensor, num_tokens: torch.Tensor) -> Readings:
        """Read tokens [total_tokens, width] of clips that have num_tokens [num_clips] each."""
        padded = nn.utils.rnn.pad_sequence(tokens.split(num_tokens.tolist()), batch_first=True)
        is_token = torch.arange(padded.shape[1]) < num_tokens[:, None]
        scores = self.queries(padded).masked_fill(~is_token[..., None], -1e4)
        attended = scores.softmax(dim=1).transpose(1, 2) @ padded  # [num_clips, queries, width]
        mean = padded.sum(dim=1) / num_tokens[:, None]
        pooled = self.dropout(self.norm(torch.cat([attended.flatten(1), mean], dim=1)))
        return Readings(self.emotion(pooled), self.clip(pooled), self.frame(tokens))


def loss(readings: Readings, batch: Batch, smoothing: float = 0.1) -> torch.Tensor:
    """The weighted sum of all the heads' losses: a scalar."""
    soft = batch.emotion * (1 - smoothing) + smoothing / len(EMOTIONS)
    emotion = -(soft * readings.emotion.log_softmax(-1)).sum(-1).mean()
    facts = torch.stack([batch.strong, batch.female, batch.statement], dim=1)
    clip = F.binary_cross_entropy_with_logits(readings.clip, facts * 0.9 + 0.05, reduction="none")
    clip = (clip * batch.is_pure[:, None]).mean(0) @ torch.tensor([0.3, 0.1, 0.1])
    return emotion + clip + _frame_loss(readings.frame, batch)


def _frame_loss(frame: torch.Tensor, batch: Batch) -> torch.Tensor:
    is_pure = torch.repeat_interleave(batch.is_pure, batch.num_tokens).float()
    is_voiced = (batch.pitch > 0).float()
    pitch = F.smooth_l1_loss(frame[:, 0], batch.pitch, beta=0.1, reduction="none") * is_voiced
    voicing = F.binary_cross_entropy_with_logits(frame[:, 1], is_voiced, reduction="none")
    level = F.smooth_l1_loss(frame[:, 2], batch.level, beta=0.05, reduction="none")
    return ((pitch + 0.2 * voicing + level) * is_pure).sum() / (is_pure.sum() + 1)
