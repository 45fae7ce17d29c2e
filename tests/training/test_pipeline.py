"""`python -m training` from nothing, on a few clips: no model comes of it, but a long run does not fail at its end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from skydraft.core import CALIBRATION_FILE, read_calibration
from training.calibrate import Captioner, weights_digest
from training.evaluate import MODELS
from training.pipeline import Sources
from training.whisper import NUM_LAYERS, NUM_MEL_BINS, WIDTH

ROOT = Path(__file__).parents[2]


def made_up_whisper(folder: Path) -> None:
    """Weights under the names of openai/whisper-base, drawn at random."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"conv1": (WIDTH, NUM_MEL_BINS, 3), "conv2": (WIDTH, WIDTH, 3)}
    for index in range(NUM_LAYERS):
        layer = f"layers.{index}"
        shapes |= {f"{layer}.self_attn.{part}_proj": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")}
        shapes |= {f"{layer}.fc1": (4 * WIDTH, WIDTH), f"{layer}.fc2": (WIDTH, 4 * WIDTH)}
        shapes |= {f"{layer}.{norm}_layer_norm": (WIDTH,) for norm in ("self_attn", "final")}
    weights = {f"model.encoder.{name}.weight": torch.randn(shape) * 0.03 for name, shape in shapes.items()}
    for name, shape in shapes.items():
        if not name.endswith("k_proj"):
            weights[f"model.encoder.{name}.bias"] = torch.zeros(shape[0])
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")


def few_clips(speech: Path, folder: Path) -> None:
    """Two clips of each emotion of two train actors, and one of each of the others."""
    rows = [json.loads(line) for line in (speech / "labels.jsonl").read_text().splitlines()]
    taken, kept = dict[tuple[int, str], int](), []
    for row in rows:
        of_actor = {1: 2, 2: 2, 17: 1, 18: 1, 19: 1, 20: 1}.get(row["actor"], 0)
        key = (row["actor"], row["emotion"])
        if taken.setdefault(key, 0) < of_actor and (row["actor"] < 17 or row["emotion"] in ("sad", "angry")):
            taken[key] += 1
            kept.append(json.dumps(row))
    folder.mkdir()
    (folder / "labels.jsonl").write_text("\n".join(kept) + "\n")
    (folder / "ravdess").symlink_to(speech / "ravdess")


def test_plans_keep_an_epoch_of_each_stage_however_few_are_wanted(tmp_path: Path) -> None:
    sources = Sources(tmp_path, "", tmp_path, epochs_share=0.01)
    assert (sources.plan("draft").tower_epochs, sources.plan("draft").caption_epochs) == (1, 1)
    assert (sources.plan("target").tower_epochs, sources.plan("target").caption_epochs) == (0, 1)
    assert sources._replace(epochs_share=0.5).plan("draft").tower_epochs == 15


@pytest.mark.slow
def test_a_pair_comes_from_nothing_and_the_shipped_one_stays(unseen_clips: list[Path], tmp_path: Path) -> None:
    shipped = {path: path.stat().st_mtime_ns for path in MODELS.rglob("*") if path.is_file()}
    few_clips(unseen_clips[0].parents[1], tmp_path / "speech")
    made_up_whisper(tmp_path / "whisper")
    command = [sys.executable, "-m", "training", "--seeds", "1", "--epochs-share", "0.01"]
    for name in ("speech", "whisper", "cache", "out"):
        command += [f"--{name}", str(tmp_path / name)]
    subprocess.run(command, check=True, cwd=ROOT)
    for name in ("draft", "target"):
        folder = tmp_path / "out" / name
        assert (folder / "README.md").is_file()
        assert Captioner(f"numpy:{folder}").emotions
    calibration = read_calibration((tmp_path / "out" / "draft" / CALIBRATION_FILE).read_bytes())
    assert calibration.weights == weights_digest(tmp_path / "out" / "draft")
    assert calibration.familiarity is not None
    assert (tmp_path / "out" / "target" / "LICENSE.whisper").is_file()
    assert "0" in json.loads((tmp_path / "out" / "captions.json").read_text())["seeds"]
    assert shipped == {path: path.stat().st_mtime_ns for path in MODELS.rglob("*") if path.is_file()}
