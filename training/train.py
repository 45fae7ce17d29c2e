"""Training one model: the draft's audio tower with many heads, then captions; the target's captions alone."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from training import captioner, captions, tower, whisper
from training.architecture import SHAPES, ModelName, build, initialise, put_whisper, whiten
from training.batches import Batch, Disturbance, Loader
from training.captioner import Writer
from training.learning import Average, add_dropout, branch_ends, optimizer, set_rate
from training.material import Material

Report = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long and how hard one model trains; an epoch shows one variant of each train clip."""

    tower_epochs: int
    caption_epochs: int
    tower_weights: tower.Weights
    tower_rate: float = 3e-3
    caption_rate: float = 1.5e-3
    batch_size: int = 16
    weight_decay: float = 0.05
    dropout: float = 0.05
    channel_dropout: float = 0.0  # of whole channels that the projector reads
    text_only_share: float = 0.2
    average_decay: float = 0.99
    time_limit_s: float = math.inf  # of each stage; a stage that meets it ends its schedule early
    disturbance: Disturbance = field(default_factory=Disturbance)


PLANS: dict[ModelName, Plan] = {
    "draft": Plan(
        tower_epochs=30,
        caption_epochs=14,
        tower_weights=tower.Weights(statistics=3.0, heard=1.0),
        caption_rate=2e-3,
    ),
    "target": Plan(tower_epochs=0, caption_epochs=12, tower_weights=tower.Weights(), dropout=0.1, channel_dropout=0.15),
}


class Learner(nn.Module):
    """The model that ships, with the heads that do not."""

    def __init__(self, name: ModelName, material: Material, plan: Plan, source: str, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        shape, self._plan, self._is_frozen = SHAPES[name], plan, name == "target"
        self.model: Qwen2_5OmniThinkerForConditionalGeneration = build(shape, material.tokenizer)
        initialise(self.model)
        if self._is_frozen:
            put_whisper(self.model, whisper.read_weights(source), material.heard_statistics)
        else:
            whiten(self.model, material.patch_statistics())
        self.heads = tower.Heads(shape.text_width, material.lessons.statistics.shape[1], dropout=0.2)
        self.model.model.visual.requires_grad_(False)
        self._heard = material.heard_statistics

    def listen(self, batch: Batch) -> torch.Tensor:
        """The audio tower's tokens: float [total_tokens, text_width]."""
        audio_tower = self.model.model.audio_tower
        if not self._is_frozen:
            heard: torch.Tensor = audio_tower(batch.mel, feature_lens=batch.num_frames).last_hidden_state
            return heard
        normed = audio_tower.ln_post(batch.heard)
        if self.training:
            kept = torch.rand(len(batch.num_tokens), normed.shape[1]) >= self._plan.channel_dropout
            normed = normed * torch.repeat_interleave(kept, batch.num_tokens, dim=0)
        return audio_tower.proj(normed)  # type: ignore[no-any-return]

    def heads_loss(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What the heads make of the tower's tokens: a scalar."""
        normed = functional.layer_norm(batch.heard, batch.heard.shape[1:])
        standard = (normed - self._heard.mean) / self._heard.deviation
        return tower.loss(self.heads(tokens, batch.num_tokens), batch, standard, self._plan.tower_weights)


class Stage(NamedTuple):
    """One run over the clips: what is trained, for how long, on which loss."""

    title: str
    trained: nn.Module
    num_epochs: int
    peak_rate: float
    batch_loss: Callable[[Batch], torch.Tensor]


class Trainer:
    """Trains one model with one seed."""

    def __init__(self, name: ModelName, material: Material, plan: Plan, source: str, seed: int) -> None:
        self._name, self._material, self._plan, self._source, self._seed = name, material, plan, source, seed

    def learner(self) -> Learner:
        """The model before it learned anything."""
        return Learner(self._name, self._material, self._plan, self._source, self._seed)

    def train(self, report: Report) -> Learner:
        """All stages; returns the averaged weights."""
        start = self.learner()
        if self._plan.tower_epochs:
            start = self.train_tower(report)
        return self.train_captions(start, report)

    def train_tower(self, report: Report) -> Learner:
        """Stage one: the audio tower with its heads only; the text model stays random."""
        learner = self.learner()
        add_dropout(branch_ends(learner.model.model.audio_tower), self._plan.dropout)
        parts = nn.ModuleList([learner.model.model.audio_tower, learner.heads])

        def batch_loss(batch: Batch) -> torch.Tensor:
            return learner.heads_loss(learner.listen(batch), batch)

        stage = Stage(f"{self._name} tower", parts, self._plan.tower_epochs, self._plan.tower_rate, batch_loss)
        return self._run(stage, learner, report)

    def train_captions(self, start: Learner, report: Report) -> Learner:
        """Stage two: captions with and without hearing, the heads still beside them."""
        learner = self.learner()
        learner.load_state_dict(start.state_dict())
        add_dropout(branch_ends(learner.model), self._plan.dropout)
        writer, material = Writer(self._material.tokenizer), self._material
        generator = np.random.default_rng(self._seed)
        train_entries = material.entries("train", None)

        def batch_loss(batch: Batch) -> torch.Tensor:
            tokens = learner.listen(batch)
            num_unheard = int(len(batch.entries) * self._plan.text_only_share)
            unheard = [train_entries[i] for i in generator.integers(len(train_entries), size=num_unheard)]
            texts = [captions.caption(material.imagined(e, generator), generator) for e in (*batch.entries, *unheard)]
            written = writer.rows(texts, [*batch.num_tokens.tolist(), *[0] * num_unheard])
            log_probs, ids = captioner.token_log_probs(learner.model, written, tokens)
            return captioner.loss(log_probs, ids, writer.emotion_ids) + learner.heads_loss(tokens, batch)

        stage = Stage(f"{self._name} captions", learner, self._plan.caption_epochs, self._plan.caption_rate, batch_loss)
        return self._run(stage, learner, report)

    def _run(self, stage: Stage, learner: Learner, report: Report) -> Learner:
        """Train until the stage's epochs or the plan's time are over; returns the averaged weights."""
        plan, material = self._plan, self._material
        loader = Loader(material, material.entries("train", None), self._seed)
        num_batches = len(material.entries("train")) // plan.batch_size
        steps, average = optimizer(stage.trained, plan.weight_decay), Average(learner, plan.average_decay)
        started, step, progress, losses = time.monotonic(), 0, 0.0, deque[float](maxlen=num_batches)
        while progress < 1:
            learner.train()
            for batch in loader.epoch(plan.batch_size, plan.disturbance):
                step += 1
                elapsed_s = time.monotonic() - started
                progress = max(step / (num_batches * stage.num_epochs), elapsed_s / plan.time_limit_s)
                set_rate(steps, stage.peak_rate, min(progress, 1.0))
                losses.append(_step(stage, steps, batch))
                average.update(learner)
                if progress >= 1:
                    break
            heads, words = accuracy(average.module, material)
            report(
                f"{stage.title} {step / num_batches:.1f} loss {np.mean(losses):.3f} "
                f"tune heads {heads:.3f} words {words:.3f} {elapsed_s:.0f} s"
            )
        return average.module


def _step(stage: Stage, steps: torch.optim.Optimizer, batch: Batch) -> float:
    value = stage.batch_loss(batch)
    steps.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_([p for p in stage.trained.parameters() if p.requires_grad], 1.0)
    steps.step()
    return value.item()


@torch.no_grad()
def accuracy(learner: Learner, material: Material) -> tuple[float, float]:
    """Share of the tune clips whose emotion the heads name, and of those where "A woman sounds ..." goes on with it."""
    loader, writer = Loader(material, material.entries("tune"), seed=0), Writer(material.tokenizer)
    heads_right = words_right = 0
    for batch in loader.plain():
        clips = [material.clips[e.clip_index] for e in batch.entries]
        truth = torch.tensor([clip.emotion_index for clip in clips])
        tokens = learner.listen(batch)
        heads_right += int((learner.heads(tokens, batch.num_tokens).emotion.argmax(-1) == truth).sum())
        begun = [f"A {'woman' if clip.is_female else 'man'} sounds" for clip in clips]
        said = captioner.next_words(learner.model, writer, begun, batch.num_tokens.tolist(), tokens)
        words_right += int((said == truth).sum())
    return heads_right / len(loader.entries), words_right / len(loader.entries)


def save(learner: Learner, path: Path) -> None:
    """Keep a checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(learner.state_dict(), path)
