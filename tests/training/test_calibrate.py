from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from skydraft.core import CALIBRATION_FILE, TokenSignals, read_calibration
from skydraft.edge.drafter import Block
from skydraft.engines.load import load_tokenizer
from skydraft.models import embedded_path
from skydraft.tasks.emotions import emotion_of
from training.calibrate import (
    Captioner,
    Named,
    calibrate,
    logistic,
    named_emotions,
    place_of,
    quantiles_of,
    weights_digest,
)
from training.clips import Clip, read_clips
from training.conditions import PLAIN

EMOTION = 7


def block(*margins: float, token_ids: tuple[int, ...]) -> Block:
    return Block(token_ids, tuple(TokenSignals(1 - margin, margin - 1, margin) for margin in margins), None)


def test_the_worst_token_of_a_text_counts_and_of_a_text_without_emotion_none() -> None:
    named = [block(0.9, 0.2, token_ids=(1, EMOTION)), block(0.1, 0.6, token_ids=(1, EMOTION))]
    found = quantiles_of([*named, block(0.4, token_ids=(1,))], frozenset({EMOTION}))

    def quantiles(name: str) -> list[float]:
        return [found[name][index] for index in (0, 20, 40)]

    assert quantiles("margin") == pytest.approx([0.1, 0.2, 0.4])
    assert quantiles("entropy") == pytest.approx([0.6, 0.8, 0.9])
    assert quantiles("logprob") == pytest.approx([-0.9, -0.8, -0.6])
    assert quantiles("emotion-margin") == pytest.approx([0.2, 0.6, 1.0])
    assert quantiles("emotion-entropy") == pytest.approx([0.0, 0.4, 0.8])


def test_the_logistic_of_what_is_calibrated_is_the_identity_and_of_boasts_is_flatter() -> None:
    generator = np.random.default_rng(0)
    shares = generator.uniform(0.05, 0.95, 4000)
    honest = [Named(share, bool(generator.random() < share)) for share in shares]
    offset, slope = logistic(honest)
    assert offset == pytest.approx(0.0, abs=0.1)
    assert slope == pytest.approx(1.0, abs=0.1)
    boasts = [Named(share**2 / (share**2 + (1 - share) ** 2), is_right) for share, is_right in honest]
    assert logistic(boasts)[1] == pytest.approx(slope / 2, abs=0.01)  # log-odds of twice the size


def test_an_emotion_is_named_where_its_first_word_stands() -> None:
    assert place_of([1, EMOTION, EMOTION], {EMOTION: "sad"}) == 1
    assert place_of([1, 2], {EMOTION: "sad"}) == 2


def test_the_shipped_calibration_is_of_the_shipped_draft() -> None:
    folder = embedded_path("draft")
    shipped = read_calibration((folder / CALIBRATION_FILE).read_bytes())
    assert shipped.num_texts == 120
    assert shipped.weights == weights_digest(folder), "the draft is another: run python -m training.calibrate"
    assert shipped.confidence is not None
    assert shipped.familiarity is not None


@pytest.fixture(scope="module")
def clips(unseen_clips: list[Path]) -> list[Clip]:
    speech = unseen_clips[0].parents[1]
    return [clip for clip in read_clips(speech) if clip.actor in (17, 18)][::40]


def test_the_draft_weighs_the_emotions_that_captions_name(clips: list[Clip]) -> None:
    draft, target = Captioner("embedded"), Captioner("embedded", "target")
    decode = load_tokenizer("embedded", "draft").decode
    for writer in (draft, target):
        (named,) = named_emotions(draft, writer, clips[:1], [PLAIN])
        prompt = draft.prompt(clips[0].samples())
        emotion = emotion_of(decode(writer.write(prompt).token_ids))
        assert named.is_right == (emotion == clips[0].emotion)
        assert 0 < named.probability <= 1


def test_a_pair_is_calibrated_on_its_own_captions(clips: list[Clip], tmp_path: Path) -> None:
    """Of few clips, so that only the way is tried; the quantiles are those of the captions."""
    folder = tmp_path / "draft"
    shutil.copytree(embedded_path("draft"), folder)
    calibrate(folder, embedded_path("target"), train=clips, tune=clips[:2])
    found = read_calibration((folder / CALIBRATION_FILE).read_bytes())
    draft = Captioner(f"numpy:{folder}")
    captions = [draft.write(draft.prompt(clip.samples())) for clip in clips[:2]]
    assert captions[0].token_ids[-1] in load_tokenizer(str(folder), "draft").vocabulary.end_ids
    worst = [min(signal.log_prob for signal in caption.signals) for caption in captions]
    assert [found.quantile("logprob", 0), found.quantile("logprob", 1)] == pytest.approx(sorted(worst), abs=1e-6)
    assert found.familiarity is not None
    assert found.familiarity.steps_per_unit == 64


def test_a_model_that_cannot_hear_is_not_calibrated() -> None:
    with pytest.raises(ValueError, match="the model table:vocab=8 cannot hear"):
        Captioner("table:vocab=8")
