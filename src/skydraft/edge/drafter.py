"""Drafts with a model on the device. Synchronous: the runtime calls it in a worker thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from skydraft.core import AcceptanceRule, LatticeDistribution, Prompt, SamplingParams, TokenSignals
from skydraft.decoding.guess_tree import GuessTree, Node
from skydraft.edge.tree_reader import DraftStep, TreeReader
from skydraft.engines.base import Array, Engine, Extension, Slot
from skydraft.sampling.guesses import Guesses, best_guesses
from skydraft.sampling.lattice import draw, to_lattice
from skydraft.sampling.signals import token_signals


class Block(NamedTuple):
    """Drafted tokens, a chain.

    signals: of each token.
    distributions: what each was drawn from, where the rule is `rejection`.
    num_passes, num_read: of the draft model for it, and tokens that these read; 0 where the guess was known.
    """

    token_ids: tuple[int, ...]
    signals: tuple[TokenSignals, ...]
    distributions: tuple[LatticeDistribution, ...] | None
    num_passes: int = 0
    num_read: int = 0


class Drafter:
    """One text on one slot of a draft engine."""

    def __init__(self, engine: Engine, sampling: SamplingParams, rule: AcceptanceRule) -> None:
        self._engine = engine
        self._sampling = sampling
        self._rule = rule
        self._slot: Slot | None = None
        self._held: list[int] = []  # generated tokens in the slot, where it holds no tree
        self._reader: TreeReader | None = None
        self._prompt_row: Array = None
        self._num_passes = self._num_read = 0  # of the block under way

    def open(self, prompt: Prompt) -> None:
        """Read the prompt. Raises what `Engine.open` raises."""
        self._slot, self._prompt_row = self._engine.open(prompt)[:2]
        self._held, self._reader = [], None

    def close(self) -> None:
        """Give the slot back, where there is one."""
        if self._slot is not None:
            self._engine.close(self._slot)
            self._slot = None

    def follow(self, text_ids: Sequence[int]) -> None:
        """From now on read trees that hang from this text: `plan` and `guess` instead of `draft`."""
        self._leave_tree(text_ids)
        self._reader = TreeReader(self._engine, self._open_slot, self._prompt_row, self._keep(text_ids))

    def plan(self, tree: GuessTree, nodes: Sequence[Node]) -> DraftStep:
        """As TreeReader.plan."""
        assert self._reader is not None, "follow the text first"
        return self._reader.plan(tree, nodes)

    def guess(self, step: DraftStep, num_guesses: int, num_shared_ids: int) -> list[Guesses]:
        """What may follow each of the nodes of a step.

        Args:
            num_guesses: for each, at most.
            num_shared_ids: ids from here on are not guessed: the target does not have them.
        Raises:
            CacheOverflow: the slot is full; its tree is lost.
        """
        assert self._reader is not None, "follow the text first"
        rows = self._reader.run(step)[-len(step.nodes) :, :num_shared_ids]
        return best_guesses(rows, self._sampling, [node.position + 1 for node in step.nodes], num_guesses)

    def draft(self, text_ids: Sequence[int], num_tokens: int, num_shared_ids: int) -> Block:
        """Guess what follows the text.

        Args:
            num_tokens: how many tokens; there are fewer where the text ends.
            num_shared_ids: ids from here on are not drafted: the target does not have them.
        """
        self._leave_tree(text_ids)
        self._num_passes = self._num_read = 0
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
        return Block(tuple(ids[len(text_ids) :]), tuple(signals), drawn_from, self._num_passes, self._num_read)

    def _guess(self, row: Array, position: int) -> tuple[int, LatticeDistribution | None]:
        lattice = self._rule.draft_lattice
        if lattice is not None:
            distribution = to_lattice(row, self._sampling, lattice)
            return draw(distribution, self._sampling.seed, position), distribution
        return best_guesses(row[None, :], self._sampling, [position], 1)[0].token_ids[0], None

    def _read(self, text_ids: Sequence[int]) -> Array:
        """Bring the slot to the text; returns the logits [vocab_size] after it."""
        num_kept = self._keep(text_ids)
        return self._extend(text_ids[num_kept:]) if text_ids else self._prompt_row

    def _keep(self, text_ids: Sequence[int]) -> int:
        """Drop what is not of this text; returns how many of its tokens the slot still holds."""
        # The last token is read again where only its logits are missing; after the prompt they are kept.
        num_kept = min(_num_common(self._held, text_ids), max(0, len(text_ids) - 1))
        if num_kept < len(self._held):
            self._engine.crop(self._open_slot, num_kept)
            del self._held[num_kept:]
        return num_kept

    def _leave_tree(self, text_ids: Sequence[int]) -> None:
        if self._reader is not None:
            self._held = list(text_ids[: self._reader.num_held])
            self._engine.crop(self._open_slot, len(self._held))
            self._reader = None

    def _extend(self, token_ids: Sequence[int]) -> Array:
        (logits,) = self._engine.extend([Extension.chain(self._open_slot, token_ids)])
        self._held.extend(token_ids)
        self._num_passes += 1
        self._num_read += len(token_ids)
        return logits[-1]

    @property
    def _open_slot(self) -> Slot:
        assert self._slot is not None, "open the drafter first"
        return self._slot


def _num_common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
