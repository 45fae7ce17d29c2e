from __future__ import annotations

import math

import pytest

from skydraft.policies.match_confidence import LENGTHS, PRIOR, MatchConfidence


def test_before_anything_was_seen_longer_matches_are_likelier() -> None:
    confidence = MatchConfidence()
    assert [confidence.prob(length) for length in LENGTHS] == pytest.approx(PRIOR)
    assert confidence.prob(5) == confidence.prob(4)
    assert confidence.prob(1000) == confidence.prob(LENGTHS[-1])


def test_hits_and_misses_count_for_their_length_alone_and_late_ones_more() -> None:
    confidence = MatchConfidence()
    for _ in range(200):
        confidence.observe(3, is_hit=True)
    assert 0.95 < confidence.prob(3) < 1
    assert confidence.prob(2) == pytest.approx(PRIOR[0])
    for _ in range(40):
        confidence.observe(3, is_hit=False)
    assert confidence.prob(3) < 0.4


def test_a_chain_ends_where_its_tokens_become_too_improbable() -> None:
    confidence = MatchConfidence()
    log_probs = confidence.log_probabilities(2, 64, math.log(0.05))
    assert log_probs[:3] == pytest.approx([math.log(prob) for prob in (0.25, 0.4, 0.5)])
    assert sum(log_probs) >= math.log(0.05) > sum(log_probs) + math.log(confidence.prob(2 + len(log_probs)))
    assert list(confidence.log_probabilities(2, 2, -math.inf)) == list(log_probs[:2])
    assert list(confidence.log_probabilities(2, 64, 0.0)) == []
