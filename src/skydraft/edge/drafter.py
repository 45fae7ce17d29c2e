"""Drafts with a model on the device. Synchronous: the runtime calls it in a worker thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from skydraft.core import AcceptanceRule, LatticeDistribution, Prompt, Rejection, SamplingParams, TokenSignals
from skydraft.engines.base import Array, Engine, Extension, Slot
from skydraft.sampling.choice import best_guesses
from skydraft.sampling.lattice import draw, to_lattice
from skydraft.sampling.signals import token_signals


class Block(NamedTuple):
    """Drafted tokens, a chain.

    signals: of each token.
    distributions: what each was drawn from, where the rule is `rejection`.
    """

    token_ids: tuple[int, ...]
    signals: tuple[TokenSignals, ...]
    distributions: tuple[LatticeDistribution, ...] | None


class Drafter:
    """One text on one slot of a draft engine."""

    def __init__(self, engine: Engine, sampling: SamplingParams, rule: AcceptanceRule) -> None:
        self._engine = engine
        self._sampling = sampling
        self._rule = rule
        self._slot: Slot | None = None
        self._held: list[int] = []  # generated tokens in the slot
        self._prompt_row: Array = None

    def open(self, prompt: Prompt) -> None:
        """Read the prompt. Raises what `Engine.open` raises."""
        self._slot, self._prompt_row = self._engine.open(prompt)[:2]
        self._held = []

    def close(self) -> None:
        """Give the slot back, where there is one."""
        if self._slot is not None:
            self._engine.close(self._slot)
            self._slot = None

    def draft(self, text_ids: Sequence[int], num_tokens: int, num_shared_ids: int) -> Block:
        """Guess what follows the text.

        Args:
            num_tokens: how many tokens; there are fewer where the text ends.
            num_shared_ids: ids from here on are not drafted: the target does not have them.
        """
        row = self._read(text_ids)
        ids, signals, distributions = list(text_ids), [], []
        for left in reversed(range(num_tokens)):
            row = row[:num_shared_ids]
            token_id, distribution = self._guess(row, len(ids))
            ids.append(token_id)
            distributions.append(distribution)
            signals.append(token_signals(row, token_id))
            if not left or self._sampling.is_end(ids):
                break
            row = self._extend([token_id])
        drawn_from = tuple(item for item in distributions if item is not None) or None
        return Block(tuple(ids[len(text_ids) :]), tuple(signals), drawn_from)

    def _guess(self, row: Array, position: int) -> tuple[int, LatticeDistribution | None]:
        if isinstance(self._rule, Rejection):
            distribution = to_lattice(row, self._sampling, self._rule)
            return draw(distribution, self._sampling.seed, position), distribution
        return best_guesses(row, self._sampling, position, 1)[0], None

    def _read(self, text_ids: Sequence[int]) -> Array:
        """Bring the slot to the text; returns the logits [vocab_size] after it."""
        # The last token is read again where only its logits are missing; after the prompt they are kept.
        num_kept = min(_num_common(self._held, text_ids), max(0, len(text_ids) - 1))
        if num_kept < len(self._held):
            self._engine.crop(self._open_slot, num_kept)
            del self._held[num_kept:]
        return self._extend(text_ids[num_kept:]) if text_ids else self._prompt_row

    def _extend(self, token_ids: Sequence[int]) -> Array:
        (logits,) = self._engine.extend([Extension(self._open_slot, token_ids)])
        self._held.extend(token_ids)
        return logits[-1]

    @property
    def _open_slot(self) -> Slot:
        assert self._slot is not None, "open the drafter first"
        return self._slot


def _num_common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
