"""Pieces every training loop shares: schedule, dropout by hooks, averaged weights, checkpoints."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Generic, TypeVar

import torch
from torch import nn
from torch.nn import functional

_Module = TypeVar("_Module", bound=nn.Module)


class Average(Generic[_Module]):
    """An exponential moving average of a module's weights, the one that is kept in the end."""

    def __init__(self, module: _Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay, self._num_updates = decay, 0

    @torch.no_grad()
    def update(self, module: _Module) -> None:
        """Move towards the module's weights, faster in the first steps."""
        self._num_updates += 1
        decay = min(self._decay, self._num_updates / (self._num_updates + 9))
        for kept, new in zip(self.module.parameters(), module.parameters(), strict=True):
            if new.requires_grad:
                kept.lerp_(new, 1 - decay)


def optimizer(module: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices only; the learning rate is set each step by `set_rate`."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def set_rate(optimizer: torch.optim.Optimizer, peak: float, progress: float) -> None:
    """Warm up over the first 6 %, then fall along a cosine to 2 % of the peak; progress runs from 0 to 1."""
    rate = peak * min(1.0, progress / 0.06 + 0.02) * (0.51 + 0.49 * math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = rate


def add_dropout(modules: Iterable[nn.Module], probability: float) -> None:
    """Drop parts of the outputs of the given modules while they train; the class itself has no dropout there."""

    def drop(module: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        return functional.dropout(output, probability, module.training)

    for module in modules:
        module.register_forward_hook(drop)


def branch_ends(model: nn.Module) -> list[nn.Module]:
    """The last linear map of every residual branch, in the audio tower and in the text model."""
    return [m for name, m in model.named_modules() if name.endswith(("out_proj", "fc2", "o_proj", "down_proj"))]
