"""From nothing to a pair: all steps, one after the other.

Not in `__main__`: what processes of their own run must be in a module that they can import.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch

from training import card, evaluate, train
from training.architecture import ModelName
from training.calibrate import calibrate
from training.clips import read_clips, split_of
from training.conditions import CONDITIONS, PLAIN
from training.export import export
from training.material import gather

LICENCE = "LICENSE.whisper"


class Sources(NamedTuple):
    """Where everything comes from, where it is kept, and how much of it there is.

    epochs_share: of the plans' epochs; less than 1 is for trying the way, not for a model.
    """

    speech: Path
    whisper: str  # a folder with Whisper base's encoder, or a name on Hugging Face
    cache: Path
    num_seeds: int = 3
    epochs_share: float = 1.0

    def folder(self, name: ModelName, seed: int) -> Path:
        """Where a trained model lies."""
        return self.cache / f"seed{seed}" / name

    def plan(self, name: ModelName) -> train.Plan:
        """How long a model trains: at least an epoch of each stage that it has."""
        plan = train.PLANS[name]
        epochs = [plan.tower_epochs and max(1, round(self.epochs_share * plan.tower_epochs))]
        epochs.append(max(1, round(self.epochs_share * plan.caption_epochs)))
        return dataclasses.replace(plan, tower_epochs=epochs[0], caption_epochs=epochs[1])


def make(name: ModelName, sources: Sources) -> None:
    """Train one model on one thread, once for each seed; what is in the cache is not repeated."""
    torch.set_num_threads(1)
    material, log = gather(sources.speech, sources.whisper, sources.cache), sources.cache / f"{name}.log"

    def report(line: str) -> None:
        with log.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")
        print(line, flush=True)

    for seed in range(sources.num_seeds):
        folder, started = sources.folder(name, seed), time.monotonic()
        if not (folder / "model.safetensors").exists():
            learner = train.Trainer(name, material, sources.plan(name), sources.whisper, seed).train(report)
            export(learner.model, material.tokenizer, folder)
            report(f"{name} of seed {seed} finished after {(time.monotonic() - started) / 60:.1f} minutes")


def make_both(sources: Sources) -> None:
    """Train both models side by side."""
    processes = [get_context("spawn").Process(target=make, args=(name, sources)) for name in get_args(ModelName)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


def assemble(sources: Sources, out: Path) -> None:
    """Copy the first seed's pair to `out` and calibrate its draft. (Choosing by 120 clips would choose luck.)"""
    for name in get_args(ModelName):
        shutil.copytree(sources.folder(name, 0), out / name, dirs_exist_ok=True)
    if not (out / "target" / LICENCE).exists():
        shutil.copyfile(evaluate.MODELS / "target" / LICENCE, out / "target" / LICENCE)
    clips = read_clips(sources.speech)
    train_clips, tune_clips = ([clip for clip in clips if split_of(clip.actor) == split] for split in ("train", "tune"))
    calibrate(out / "draft", out / "target", train_clips, tune_clips)


def score(sources: Sources) -> dict[int, dict[str, Any]]:
    """Scores of every seed's pair, of the first recorded otherwise too."""
    scores = {}
    for seed in range(sources.num_seeds):
        pair: evaluate.Pair = {name: sources.folder(name, seed) for name in get_args(ModelName)}
        conditions = [PLAIN] if seed else list(CONDITIONS)
        scores[seed] = evaluate.score_pair(pair, sources.speech, evaluate.REPORTED, conditions)
    return scores


def main() -> None:
    """Compute features, train both models side by side, calibrate, score them, write their cards."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Trains a pair, from nothing.")
    parser.add_argument("--speech", type=Path, default=Path("../shared/speech"))
    parser.add_argument("--whisper", default="openai/whisper-base", help="a folder or a name on Hugging Face")
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    parser.add_argument("--out", type=Path, help="folder for the pair and its scores (default: CACHE/pair)")
    parser.add_argument("--ship", action="store_true", help="write over the pair in src/skydraft/models and its scores")
    parser.add_argument("--seeds", type=int, default=3, help="pairs to train; the first is written")
    parser.add_argument("--epochs-share", type=float, default=1.0, help="of the epochs: a small one tries the way")
    options = parser.parse_args()
    if options.ship and options.out:
        parser.error("--ship names the place of the pair: leave --out out")
    sources = Sources(options.speech, options.whisper, options.cache, options.seeds, options.epochs_share)
    out = evaluate.MODELS if options.ship else options.out or options.cache / "pair"
    gather(sources.speech, sources.whisper, sources.cache)
    make_both(sources)
    assemble(sources, out)
    scores = score(sources)
    evaluate.write_results(scores, evaluate.RESULTS if options.ship else out / "captions.json")
    card.write_cards(scores, out)
    print(evaluate.table(scores[0]))
    for name, share in evaluate.over_seeds(list(scores.values()), sources.speech).items():
        print(f"{name} over {len(scores)} seeds: {evaluate.interval(share._asdict())}")
    print(f"The pair is in {out}.")
