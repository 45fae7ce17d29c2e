"""How probable it is that a text goes on as it did where its last tokens stood before, learnt while it is written.

The longer the stretch that both places share, the likelier they go on alike: in a quotation after a few tokens nearly
always, after two common words seldom. So hits and misses are counted for each length, and fade: a text that begins to
quote is soon followed further.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

LENGTHS = (2, 3, 4, 6, 9, 16)  # a bucket begins at each
PRIOR = (0.25, 0.4, 0.5, 0.65, 0.8, 0.9)  # how often such matches hold, before anything was seen
PRIOR_WEIGHT = 2.0  # so many places count as seen
FORGETTING = 0.97  # of a bucket: about its last 33 places count


@dataclass
class MatchConfidence:
    """Of one device; what it learnt serves the next text too."""

    _hits: list[float] = field(default_factory=lambda: [0.0] * len(LENGTHS), init=False)
    _weights: list[float] = field(default_factory=lambda: [0.0] * len(LENGTHS), init=False)

    def prob(self, length: int) -> float:
        """That the token behind a match of this many tokens follows here too; below 1."""
        bucket = _bucket(length)
        hits = self._hits[bucket] + PRIOR[bucket] * PRIOR_WEIGHT
        return hits / (self._weights[bucket] + PRIOR_WEIGHT)

    def log_probabilities(self, length: int, num_tokens: int, least: float) -> Sequence[float]:
        """Of each of the tokens behind a match to follow, given those before it; natural logarithms.

        Each token that holds makes the match longer.

        Args:
            num_tokens: how many there are.
            least: of the sum; tokens from where it falls below are left out.
        """
        log_probs: list[float] = []
        total = 0.0
        for index in range(num_tokens):
            log_prob = math.log(self.prob(length + index))
            total += log_prob
            if total < least:
                break
            log_probs.append(log_prob)
        return log_probs

    def observe(self, length: int, is_hit: bool) -> None:
        """Learn whether the token behind a match was the text's."""
        bucket = _bucket(length)
        self._hits[bucket] = FORGETTING * self._hits[bucket] + is_hit
        self._weights[bucket] = FORGETTING * self._weights[bucket] + 1.0


def _bucket(length: int) -> int:
    return max(0, bisect_right(LENGTHS, length) - 1)
