"""How probable it is that a guess is the target's choice, learnt while the text is written.

The draft's best guesses of a position come with scores (log-probabilities, plus the shared noise where the text is
sampled). If both models agreed, the best one would be right; the further they differ, the less a lead means. So guess i
gets probability (1 - miss) * softmax(sharpness * scores)[i], with two numbers that are learnt from what the text turned
out to be: `sharpness`, by gradient ascent on the log-likelihood, and `miss`, how often no guess was right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_SHARPNESS, MOST_SHARPNESS = 0.1, 10.0
LEAST_MISS, MOST_MISS = 0.005, 0.95
AGREEMENT_MEMORY = 32


@dataclass
class Confidence:
    """Of one pair of models; what it learnt serves the next text too.

    sharpness, miss: where it begins: typical of a 4-bit draft of its own target.
    learning_rate: of the logarithm of the sharpness.
    memory: how many positions the running mean of misses looks back.
    agreement: how often the best guess was right, of late.
    """

    sharpness: float = 1.5
    miss: float = 0.08
    agreement: float = 0.83
    learning_rate: float = 0.05
    memory: int = 64

    def log_probabilities(self, scores: Sequence[float]) -> list[float]:
        """Of each guess to be the target's choice, given that the text leads here; natural logarithms.

        Args:
            scores: of the guesses, the best first; at least one.
        """
        sharpness, best = self.sharpness, scores[0]
        leads = [sharpness * (score - best) for score in scores]
        offset = math.log((1.0 - self.miss) / sum(map(math.exp, leads)))
        return [lead + offset for lead in leads]

    def observe(self, scores: Sequence[float], rank: int | None) -> None:
        """Learn which guess was the target's choice.

        Args:
            rank: its index among the guesses; None: it was not among them.
        """
        self.agreement += ((rank == 0) - self.agreement) / AGREEMENT_MEMORY
        missed = 1.0 if rank is None else 0.0
        self.miss = _within(self.miss + (missed - self.miss) / self.memory, LEAST_MISS, MOST_MISS)
        if rank is None:
            return
        weights = [math.exp(self.sharpness * (score - scores[0])) for score in scores]
        expected = sum(weight * score for weight, score in zip(weights, scores, strict=True)) / sum(weights)
        # d log-likelihood / d log(sharpness); bounded, since one surprise must not unlearn a text
        gradient = self.sharpness * (scores[rank] - expected)
        step = self.learning_rate * _within(gradient, -3.0, 3.0)
        self.sharpness = _within(self.sharpness * math.exp(step), LEAST_SHARPNESS, MOST_SHARPNESS)


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)
