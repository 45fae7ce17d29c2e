"""The two stages of training one model: its audio tower with many heads, then captions."""

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
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from training import captioner, captions, tower
from training.architecture import SHAPES, ModelName, build, initialise
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
    tower_rate: float = 2e-3
    caption_rate: float = 8e-4
    batch_size: int = 16
    weight_decay: float = 0.05
    dropout: float = 0.05
    text_only_share: float = 0.3
    tower_weight: float = 1.0  # of the heads' loss beside the caption loss
    average_decay: float = 0.995
    time_limit_s: float = math.inf  # of each stage; a stage that meets it ends its schedule early
    seed: int = 0
    disturbance: Disturbance = field(default_factory=Disturbance)


PLANS: dict[ModelName, Plan] = {
    "draft": Plan(tower_epochs=12, caption_epochs=40, tower_rate=3e-3, caption_rate=2e-3),
    "target": Plan(tower_epochs=30, caption_epochs=26, caption_rate=1.5e-3, seed=1),
}


class Learner(nn.Module):
    """The model that ships, with the heads that do not."""

    def __init__(self, name: ModelName, material: Material, plan: Plan) -> None:
        super().__init__()
        torch.manual_seed(plan.seed)
        self.model: Qwen2_5OmniThinkerForConditionalGeneration = build(SHAPES[name], material.tokenizer)
        initialise(self.model, material.patch_statistics())
        self.heads = tower.Heads(SHAPES[name].text_width, material.lessons.statistics.shape[1], dropout=0.2)


class Stage(NamedTuple):
    """One run over the clips: what is trained, for how long, on which loss."""

    title: str
    trained: nn.Module
    num_epochs: int
    peak_rate: float
    batch_loss: Callable[[Batch], torch.Tensor]


def train_tower(name: ModelName, material: Material, plan: Plan, report: Report) -> Learner:
    """Stage one: the audio tower with its heads only.

    Returns:
        the averaged weights; its text model is still random.
    """
    learner = Learner(name, material, plan)
    add_dropout(branch_ends(learner.model.model.audio_tower), plan.dropout)
    parts = nn.ModuleList([learner.model.model.audio_tower, learner.heads])

    def batch_loss(batch: Batch) -> torch.Tensor:
        tokens = captioner.audio_tokens(learner.model, batch)
        return tower.loss(learner.heads(tokens, batch.num_tokens), batch)

    stage = Stage(f"{name} tower", parts, plan.tower_epochs, plan.tower_rate, batch_loss)
    return _run(stage, learner, material, plan, report)


def train_captions(name: ModelName, start: Learner, material: Material, plan: Plan, report: Report) -> Learner:
    """Stage two: captions with and without hearing, the heads still beside them."""
    learner = Learner(name, material, plan)
    learner.load_state_dict(start.state_dict())
    add_dropout(branch_ends(learner.model), plan.dropout)
    writer = Writer(material.tokenizer)
    generator = np.random.default_rng(plan.seed)
    train_entries = material.entries("train", None)

    def batch_loss(batch: Batch) -> torch.Tensor:
        tokens = captioner.audio_tokens(learner.model, batch)
        heads_loss = tower.loss(learner.heads(tokens, batch.num_tokens), batch)
        num_unheard = int(len(batch.entries) * plan.text_only_share)
        unheard = [train_entries[i] for i in generator.integers(len(train_entries), size=num_unheard)]
        texts = [captions.caption(material.imagined(e, generator), generator) for e in (*batch.entries, *unheard)]
        written = writer.rows(texts, [*batch.num_tokens.tolist(), *[0] * num_unheard])
        log_probs, ids = captioner.token_log_probs(learner.model, written, tokens)
        return captioner.loss(log_probs, ids, writer.emotion_ids) + plan.tower_weight * heads_loss

    stage = Stage(f"{name} captions", learner, plan.caption_epochs, plan.caption_rate, batch_loss)
    return _run(stage, learner, material, plan, report)


def _run(stage: Stage, learner: Learner, material: Material, plan: Plan, report: Report) -> Learner:
    """Train until the stage's epochs or the plan's time are over; returns the averaged weights."""
    loader = Loader(material, material.entries("train", None), plan.seed)
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
        accuracy = heads_accuracy(average.module, material)
        epoch = step / num_batches
        report(f"{stage.title} {epoch:.1f} loss {np.mean(losses):.3f} tune {accuracy:.3f} {elapsed_s:.0f} s")
    return average.module


def _step(stage: Stage, steps: torch.optim.Optimizer, batch: Batch) -> float:
    value = stage.batch_loss(batch)
    steps.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(stage.trained.parameters(), 1.0)
    steps.step()
    return value.item()


@torch.no_grad()
def heads_accuracy(learner: Learner, material: Material) -> float:
    """Share of the tune clips whose emotion the heads name."""
    loader = Loader(material, material.entries("tune"), seed=0)
    num_right = 0
    for batch in loader.plain():
        truth = torch.tensor([material.clips[e.clip_index].emotion_index for e in batch.entries])
        readings = learner.heads(captioner.audio_tokens(learner.model, batch), batch.num_tokens)
        num_right += int((readings.emotion.argmax(-1) == truth).sum())
    return num_right / len(loader.entries)


def save(learner: Learner, path: Path) -> None:
    """Keep a checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(learner.state_dict(), path)


def load(name: ModelName, material: Material, plan: Plan, path: Path) -> Learner:
    """Open a checkpoint."""
    learner = Learner(name, material, plan)
    learner.load_state_dict(torch.load(path, weights_only=True))
    return learner.eval()
