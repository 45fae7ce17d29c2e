"""A target and a draft that agree as often as is asked for: no models, so that a text takes milliseconds to write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from bench.network.model_cache import NUM_GUESSES, Opening, Path
from skydraft.sampling.guesses import Guesses
from skydraft.text.vocabulary import Vocabulary

NUM_TOKENS = 1000
VOCABULARY = Vocabulary("made-up", tuple(map(str, range(NUM_TOKENS))), NUM_TOKENS)
CONCENTRATION = 1.2  # of the draft's sureness: models are sure at most places and unsure at some
DECAY = 0.5  # of each guess's probability against that of the one before


class MadeUpMinds:
    """Of one text.

    The draft gives its best guess a probability c, others what is left, and the target chooses by these: so the draft
    knows how sure it may be. c differs from place to place, by a beta law with the mean that is asked for.

    Args:
        agreement: how often the draft's best guess is the target's choice.
        seed: of the text.
    """

    def __init__(self, opening: Opening, agreement: float, seed: int) -> None:
        self.opening = opening
        self.vocabulary = VOCABULARY
        self.row_size = NUM_TOKENS
        self._shape = (CONCENTRATION * agreement, CONCENTRATION * (1 - agreement))
        self._seed = seed
        self._known: dict[Path, tuple[Guesses, int]] = {}

    def choice(self, path: Path) -> int:
        return self._at(path)[1]

    def guesses(self, path: Path, count: int) -> Guesses:
        known = self._at(path)[0]
        return Guesses(known.token_ids[:count], known.scores[:count])

    def text(self) -> Path:
        path: Path = ()
        while not self.opening.sampling.is_end(path):
            path = (*path, self.choice(path))
        return path

    def _at(self, path: Path) -> tuple[Guesses, int]:
        if path not in self._known:
            chance = Random(f"{self._seed} {path}")
            probs = _falling(min(max(chance.betavariate(*self._shape), 1e-3), 1 - 1e-6))
            ids = chance.sample(range(NUM_TOKENS), NUM_GUESSES + 1)  # the last one is not guessed
            guesses = Guesses(tuple(ids[:-1]), tuple(map(math.log, probs)))
            (choice,) = chance.choices(ids, [*probs, max(0.0, 1 - sum(probs))])
            self._known[path] = guesses, choice
        return self._known[path]


def _falling(first: float) -> Sequence[float]:
    """Of NUM_GUESSES guesses, the most probable first."""
    probs, left = [first], 1 - first
    while len(probs) < NUM_GUESSES:
        probs.append(min(left * DECAY, probs[-1]))
        left -= probs[-1]
    return probs
