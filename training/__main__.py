"""From nothing to the shipped folders: `python -m training --speech ../shared/speech`."""

from __future__ import annotations

import argparse
import json
import time
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

import torch

from training import card, evaluate, train
from training.architecture import ModelName
from training.calibrate import calibrate
from training.export import export
from training.material import gather


def make(name: ModelName, speech: Path, cache: Path) -> None:
    """Train one model on one thread and write its folder; stages found in the cache are not repeated."""
    torch.set_num_threads(1)
    material, plan = gather(speech, cache), train.PLANS[name]
    started, log = time.monotonic(), cache / f"{name}.log"

    def report(line: str) -> None:
        with log.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")
        print(line, flush=True)

    heard, finished = cache / f"{name}-tower.pt", cache / f"{name}.pt"
    if not heard.exists():
        train.save(train.train_tower(name, material, plan, report), heard)
    if not finished.exists():
        start = train.load(name, material, plan, heard)
        train.save(train.train_captions(name, start, material, plan, report), finished)
    export(train.load(name, material, plan, finished).model, material.tokenizer, evaluate.MODELS / name)
    report(f"{name} finished after {(time.monotonic() - started) / 60:.0f} minutes")


def main() -> None:
    """Compute features, train both models side by side, score them, write their cards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, default=Path("../shared/speech"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    options = parser.parse_args()
    material = gather(options.speech, options.cache)
    processes = [
        get_context("spawn").Process(target=make, args=(name, options.speech, options.cache))
        for name in get_args(ModelName)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)
    calibrate(evaluate.MODELS / "draft", options.speech)
    scores = {name: evaluate.score(name, material) for name in get_args(ModelName)}
    evaluate.RESULTS.parent.mkdir(parents=True, exist_ok=True)
    evaluate.RESULTS.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    card.write_cards(scores)
    print(evaluate.table(scores))


if __name__ == "__main__":
    main()
