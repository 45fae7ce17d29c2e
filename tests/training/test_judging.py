from __future__ import annotations

import numpy as np
import pytest

from training import judging
from training.captions import Traits, caption

ACTORS = np.repeat([17, 18, 19, 20], 60)


def test_a_share_lies_in_its_interval() -> None:
    values = np.random.default_rng(0).random(240) < 0.6
    found = judging.share(values, ACTORS)
    assert found.low < found.value == values.mean() < found.high


def test_alike_speakers_give_nearly_the_interval_of_their_clips() -> None:
    values = np.tile(np.arange(60) % 2 == 0, 4)
    found = judging.share(values, ACTORS)
    half = 1.96 * 0.5 / np.sqrt(240)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.012)


def test_unlike_speakers_widen_the_interval_beyond_that_of_their_clips() -> None:
    values = np.isin(ACTORS, [17, 18])
    found = judging.share(values, ACTORS)
    assert (found.low, found.high) == (0.0, 1.0)


def test_paired_differences_keep_their_sign() -> None:
    generator = np.random.default_rng(0)
    draft = generator.random(240) < 0.5
    target = draft | (generator.random(240) < 0.4)
    assert judging.share(target.astype(float) - draft, ACTORS).low > 0.08


def test_shuffled_captions_are_right_by_chance_alone() -> None:
    truths = ["sad", "angry"] * 10
    assert judging.shuffled_right(truths, truths) == 0.5
    assert judging.shuffled_right(["sad"] * 20, truths) == 0.5
    assert judging.shuffled_right([None] * 20, truths) == 0


def test_confusions_count_every_clip_once() -> None:
    counts = judging.confusion(["sad", None, "calm"], ["sad", "sad", "angry"])
    assert counts["sad"]["sad"] == counts["sad"]["none"] == counts["angry"]["calm"] == 1
    assert sum(sum(row.values()) for row in counts.values()) == 3


def test_facts_are_compared_with_what_was_measured() -> None:
    facts = Traits("sad", False, True, 0, "falls", 1, 2)
    written = [caption(facts, np.random.default_rng(0)), "no caption"]
    right = judging.facts_right(written, [facts, facts])
    assert set(right.values()) == {0.5}
