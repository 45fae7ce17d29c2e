"""Trains the story pair, two small language models that come with skydraft: python -m training.stories

Of the class of the embedded pair, so that the same engines run them; what they could hear with is a stub.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from random import Random

import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5OmniThinkerForConditionalGeneration

from skydraft.text.checkpoint import STORIES_FOLDER
from training import tokenizer as tok
from training.architecture import ModelName, Shape, build, initialise
from training.export import export
from training.learning import Average, optimizer, set_rate
from training.story_texts import conversations

SHAPES: dict[ModelName, Shape] = {
    "draft": Shape(8, 1, 1, 64, 1, 4, 2, 160),
    "target": Shape(8, 1, 1, 112, 3, 4, 2, 320),
}
NUM_STEPS: dict[ModelName, int] = {"draft": 900, "target": 600}
PEAK_RATE = 4e-3
VOCABULARY_SIZE, NUM_TOKENIZER_TEXTS = 800, 6000
NUM_ROWS, ROW_LENGTH = 12, 192
SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["draft", "target"])
    torch.set_num_threads(1)
    tokenizer = tok.train(islice(conversations(Random(SEED)), NUM_TOKENIZER_TEXTS), VOCABULARY_SIZE)
    for name in parser.parse_args().names:
        export(train(name, tokenizer), tokenizer, STORIES_FOLDER / name)


def train(name: ModelName, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """Train one model on texts that it meets once."""
    torch.manual_seed(SEED)
    model = build(SHAPES[name], tokenizer)
    initialise(model)
    learnt = model.model.language_model, model.lm_head
    model.requires_grad_(False)
    for part in learnt:
        part.requires_grad_(True)
    average, steps = Average(model, decay=0.99), optimizer(model, weight_decay=0.02)
    rows, began_s, total = Rows(tokenizer), time.perf_counter(), 0.0
    for step in range(NUM_STEPS[name]):
        set_rate(steps, PEAK_RATE, step / NUM_STEPS[name])
        ids = rows.next()
        hidden = model.model.language_model(input_ids=ids[:, :-1]).last_hidden_state
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden).flatten(0, 1), ids[:, 1:].flatten())
        steps.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.step()
        average.update(model)
        total += loss.item()
        if (step + 1) % 100 == 0:
            print(f"{name} {step + 1}: loss {total / 100:.3f}, {time.perf_counter() - began_s:.0f} s", flush=True)
            total = 0.0
    return average.module


class Rows:
    """Texts one after the other, each with an end token, cut into rows of equal length."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._texts = conversations(Random(SEED + 1))
        self._ids: list[int] = []

    def next(self) -> torch.Tensor:
        """int64 [NUM_ROWS, ROW_LENGTH + 1]; each begins with a text, and what is left of the last one is dropped."""
        return torch.tensor([self._row() for _ in range(NUM_ROWS)])

    def _row(self) -> list[int]:
        ids: list[int] = []
        while len(ids) <= ROW_LENGTH:
            ids += self._tokenizer.encode(next(self._texts) + tok.TURN_END)
        return ids[: ROW_LENGTH + 1]


if __name__ == "__main__":
    main()
