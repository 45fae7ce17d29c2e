from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skydraft.core import CALIBRATION_FILE, TokenSignals, read_calibration
from skydraft.edge.drafter import Block
from skydraft.engines.load import load_tokenizer
from skydraft.models import embedded_path
from training.calibrate import calibrate, calibration, draft_captions, weights_digest
from training.clips import read_clips, split_of

EMOTION = 7


def block(*margins: float, token_ids: tuple[int, ...]) -> Block:
    return Block(token_ids, tuple(TokenSignals(1 - margin, margin - 1, margin) for margin in margins), None)


def test_the_worst_token_of_a_text_counts_and_of_a_text_without_emotion_none() -> None:
    named = [block(0.9, 0.2, token_ids=(1, EMOTION)), block(0.1, 0.6, token_ids=(1, EMOTION))]
    blocks = [*named, block(0.4, token_ids=(1,))]
    found = calibration(blocks, frozenset({EMOTION}), "abc")
    assert found.num_texts == 3
    assert [found.quantile("margin", share) for share in (0, 0.5, 1)] == pytest.approx([0.1, 0.2, 0.4])
    assert [found.quantile("entropy", share) for share in (0, 0.5, 1)] == pytest.approx([0.6, 0.8, 0.9])
    assert [found.quantile("logprob", share) for share in (0, 0.5, 1)] == pytest.approx([-0.9, -0.8, -0.6])
    assert [found.quantile("emotion-margin", share) for share in (0, 0.5, 1)] == pytest.approx([0.2, 0.6, 1.0])
    assert [found.quantile("emotion-entropy", share) for share in (0, 0.5, 1)] == pytest.approx([0.0, 0.4, 0.8])


def test_the_shipped_calibration_is_of_the_shipped_draft() -> None:
    folder = embedded_path("draft")
    shipped = read_calibration((folder / CALIBRATION_FILE).read_bytes())
    assert shipped.num_texts == 120
    assert shipped.weights == weights_digest(folder), "the draft is another: run python -m training.calibrate"


def test_a_draft_is_calibrated_on_its_own_captions(unseen_clips: list[Path], tmp_path: Path) -> None:
    """A caption of the engine's, with the worst token of each signal."""
    speech, folder = unseen_clips[0].parents[1], tmp_path / "draft"
    shutil.copytree(embedded_path("draft"), folder)
    (tmp_path / "labels.jsonl").write_text((speech / "labels.jsonl").read_text().splitlines()[17] + "\n")
    (tmp_path / "ravdess").symlink_to(speech / "ravdess")
    calibrate(folder, tmp_path, split_of(read_clips(tmp_path)[0].actor))
    found = read_calibration((folder / CALIBRATION_FILE).read_bytes())
    (caption,) = draft_captions(folder, read_clips(tmp_path))
    assert caption.token_ids[-1] in load_tokenizer(str(folder), "draft").vocabulary.end_ids
    assert found.quantile("logprob", 0.5) == pytest.approx(min(s.log_prob for s in caption.signals), abs=1e-6)
    assert found.quantile("entropy", 0.5) == pytest.approx(max(s.entropy_nats for s in caption.signals), abs=1e-6)
    assert found.quantile("emotion-margin", 0.5) >= found.quantile("margin", 0.5)


def test_a_model_that_cannot_hear_is_not_calibrated() -> None:
    with pytest.raises(ValueError, match="cannot hear"):
        draft_captions(Path("table:vocab=8"), [])
