"""Drafts without a model: what followed where the last tokens of the text stood before.

That is in the prompt, in the text itself, in what a client expects the text to be, and in earlier texts. A text that
quotes, corrects or repeats is drafted far ahead of itself so; the longer the stretch that agrees, the farther.

Source: Saxena 2023, prompt lookup decoding; Oliaro et al. 2024, SuffixDecoding, arXiv 2411.04975.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from skydraft.decoding.suffix_index import KEY, LONGEST, START, Match, SuffixIndex
from skydraft.policies.match_confidence import MatchConfidence

NUM_CHAINS = 3


class Chain(NamedTuple):
    """Tokens that may follow. log_probs: of each, given those before it; natural logarithms."""

    token_ids: Sequence[int]
    log_probs: Sequence[float]


class LookupSources(NamedTuple):
    """Where guesses are looked up, beside the prompt and the text itself.

    expected_ids: what a client expects the text to be; empty: it does not say.
    earlier: other texts; they are only read.
    """

    expected_ids: Sequence[int] = ()
    earlier: SuffixIndex | None = None


NO_SOURCES = LookupSources()


class Lookup:
    """Guesses of one text.

    Args:
        confidence: says how probable a guess is, and learns from what the text turns out to be.
        prompt_ids: of what the cloud has of the prompt: what is guessed is sent to it.
        end_ids: that end a text.
    """

    def __init__(
        self,
        confidence: MatchConfidence,
        prompt_ids: Sequence[int],
        end_ids: Sequence[int] = (),
        sources: LookupSources = NO_SOURCES,
    ) -> None:
        self._confidence = confidence
        self._end_ids = frozenset(end_ids)
        self._own = SuffixIndex()
        self._indexes = [self._own] if sources.earlier is None else [self._own, sources.earlier]
        self._suffix = [*(START,) * KEY, *prompt_ids][-LONGEST:]
        if sources.expected_ids:  # as if it had followed such a prompt before
            self._own.begin_document()
            self._own.extend((*prompt_ids[-LONGEST:], *sources.expected_ids))
        self._own.begin_document()
        self._own.extend(prompt_ids)
        self._found = self._find()

    def follow(self, token_ids: Sequence[int]) -> None:
        """The text grew by these."""
        for token_id in token_ids:
            if self._found:
                index, match = self._found[0]
                self._confidence.observe(match.length, index.following(match.place, 1) == [token_id])
            self._own.extend((token_id,))
            self._suffix = [*self._suffix[1 - LONGEST :], token_id]
            self._found = self._find()

    def chains(self, least_prob: float, count: int) -> list[Chain]:
        """What may follow the text, the most probable first.

        Args:
            least_prob: of a token, given the text so far; less probable ones are left out.
            count: tokens of a chain, at most.
        """
        chains: list[Chain] = []
        left = 1.0  # the probability that none of the chains so far is right
        for index, match in self._found:
            token_ids = self._up_to_end(index.following(match.place, count))
            least = math.log(least_prob / left)
            log_probs = list(self._confidence.log_probabilities(match.length, len(token_ids), least))
            if not log_probs:
                break
            prob = self._confidence.prob(match.length)
            log_probs[0] += math.log(left)
            chains.append(Chain(token_ids[: len(log_probs)], log_probs))
            left *= 1.0 - prob
        return chains

    def _find(self) -> list[tuple[SuffixIndex, Match]]:
        """The longest matches of all indexes, each in front of another token."""
        found = [(index, match) for index in self._indexes for match in index.find(self._suffix, NUM_CHAINS)]
        found.sort(key=lambda pair: pair[1].length, reverse=True)
        by_token: dict[int, tuple[SuffixIndex, Match]] = {}
        for index, match in found:
            by_token.setdefault(index.following(match.place, 1)[0], (index, match))
        return list(by_token.values())[:NUM_CHAINS]

    def _up_to_end(self, token_ids: Sequence[int]) -> Sequence[int]:
        ends = (number for number, token_id in enumerate(token_ids, start=1) if token_id in self._end_ids)
        return token_ids[: next(ends, len(token_ids))]
