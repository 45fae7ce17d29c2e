"""Drafts with a model on the device. What it wants of the engine it yields (`Passes`): the runtime batches that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from skydraft.core import AcceptanceRule, LatticeDistribution, Prompt, SamplingParams, TokenSignals
from skydraft.decoding.guess_tree import GuessTree, Node
from skydraft.edge.draft_lease import DraftLease, Passes, run_alone
from skydraft.edge.tree_reader import DraftStep, TreeReader
from skydraft.engines.base import Array, Engine, Extension
from skydraft.sampling.guesses import Guesses, best_guesses
from skydraft.sampling.lattice import draw, to_lattice
from skydraft.sampling.shaping import History, shape_logits
from skydraft.sampling.signals import token_signals
from skydraft.text.grammar_matcher import GrammarMatcher


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
    """One text on one slot of a draft engine.

    lease: its slot; it may be lost between two calls, and `begin` says that it was filled again.

    Args:
        matcher: where the sampling has a grammar.
    """

    def __init__(
        self,
        engine: Engine,
        lease: DraftLease,
        sampling: SamplingParams,
        rule: AcceptanceRule,
        matcher: GrammarMatcher | None = None,
    ) -> None:
        self.lease = lease
        self._matcher = matcher
        self._engine = engine
        self._sampling = sampling
        self._rule = rule
        self._held: list[int] = []  # generated tokens in the slot, where it holds no tree
        self._reader: TreeReader | None = None
        self._prompt_row: Array = None
        self._num_passes = self._num_read = 0  # of the block under way

    def begin(self, row: Array, held_ids: Sequence[int] = ()) -> None:
        """The slot has read the prompt.

        Args:
            row: float [vocab_size], after what it has read.
            held_ids: of the text, which it has read too.
        """
        self._prompt_row, self._held, self._reader = row, list(held_ids), None

    def follow(self, text_ids: Sequence[int]) -> Passes[None]:
        """From now on read trees that hang from this text: `plan` and `guess` instead of `draft`."""
        yield from self.leave_tree(text_ids)
        self._reader = TreeReader(self._engine, self.lease, self._prompt_row, self._keep(text_ids))

    def leave_tree(self, text_ids: Sequence[int]) -> Passes[Sequence[int]]:
        """Of a tree keep nothing; returns the tokens of the text that the slot holds."""
        yield from ()
        if self._reader is not None:
            self._held = list(text_ids[: self._reader.num_held])
            self._reader = None
            self.lease.crop(self._engine, len(self._held))
        return self._held

    def plan(self, tree: GuessTree, nodes: Sequence[Node]) -> DraftStep:
        """As TreeReader.plan."""
        assert self._reader is not None, "follow the text first"
        return self._reader.plan(tree, nodes)

    def guess(self, step: DraftStep, num_guesses: int, num_shared_ids: int) -> Passes[list[Guesses]]:
        """What may follow each of the nodes of a step.

        Args:
            num_guesses: for each, at most.
            num_shared_ids: ids from here on are not guessed: the target does not have them.
        Raises:
            CacheOverflow: the slot is full; its tree is lost.
        """
        assert self._reader is not None, "follow the text first"
        rows = (yield from self._reader.run(step))[-len(step.nodes) :, :num_shared_ids]
        rows = self._shape(rows, step.history)
        return best_guesses(rows, self._sampling, [node.position + 1 for node in step.nodes], num_guesses)

    def draft(self, text_ids: Sequence[int], num_tokens: int, num_shared_ids: int) -> Passes[Block]:
        """Guess what follows the text.

        Args:
            num_tokens: how many tokens; there are fewer where the text ends.
            num_shared_ids: ids from here on are not drafted: the target does not have them.
        """
        yield from self.leave_tree(text_ids)
        self._num_passes = self._num_read = 0
        row = yield from self._read(text_ids)
        ids, signals, distributions = list(text_ids), [], []
        for left in reversed(range(num_tokens)):
            row = row[:num_shared_ids]
            token_id, distribution = self._guess(row, ids)
            ids.append(token_id)
            distributions.append(distribution)
            signals.append(token_signals(row, token_id))
            if not left or self._sampling.is_end(ids):
                break
            row = yield from self._extend([token_id])
        drawn_from = tuple(item for item in distributions if item is not None) or None
        return Block(tuple(ids[len(text_ids) :]), tuple(signals), drawn_from, self._num_passes, self._num_read)

    def row_after(self, text_ids: Sequence[int]) -> Passes[Array]:
        """The logits [vocab_size] after a text that the slot has read, or is to read."""
        yield from self.leave_tree(text_ids)
        return (yield from self._read(text_ids))

    def _guess(self, row: Array, text_ids: Sequence[int]) -> tuple[int, LatticeDistribution | None]:
        """A guess of what follows the text, from the logits [vocab_size] after it."""
        row, position = self._shape(row[None, :], History(text_ids, [()]))[0], len(text_ids)
        lattice = self._rule.draft_lattice
        if lattice is not None:
            distribution = to_lattice(row, self._sampling, lattice)
            return draw(distribution, self._sampling.seed, position), distribution
        return best_guesses(row[None, :], self._sampling, [position], 1)[0].token_ids[0], None

    def _shape(self, rows: Array, history: History) -> Array:
        """The logits that guesses are made from: as the target's choices are."""
        masks = None
        if self._matcher is not None:
            self._matcher.follow_text(history.text_ids)
            known = self._matcher.masks(history.paths)  # where no id of ours fits, the cloud will say so
            masks = [mask if mask is not None and mask[: rows.shape[1]].any() else None for mask in known]
        return shape_logits(rows, self._sampling, history, masks)

    def _read(self, text_ids: Sequence[int]) -> Passes[Array]:
        """Bring the slot to the text; returns the logits [vocab_size] after it."""
        num_kept = self._keep(text_ids)
        return (yield from self._extend(text_ids[num_kept:])) if text_ids else self._prompt_row

    def _keep(self, text_ids: Sequence[int]) -> int:
        """Drop what is not of this text; returns how many of its tokens the slot still holds."""
        # The last token is read again where only its logits are missing; after the prompt they are kept.
        num_kept = min(num_common(self._held, text_ids), max(0, len(text_ids) - 1))
        if num_kept < len(self._held):
            self.lease.crop(self._engine, num_kept)
            del self._held[num_kept:]
        return num_kept

    def _extend(self, token_ids: Sequence[int]) -> Passes[Array]:
        logits = yield Extension.chain(self.lease.open_slot, token_ids)
        self._held.extend(token_ids)
        self._num_passes += 1
        self._num_read += len(token_ids)
        return logits[-1]


class LoneDrafter:
    """A drafter that has the engine for itself. Synchronous; methods and errors as `Drafter`'s."""

    def __init__(
        self,
        engine: Engine,
        sampling: SamplingParams,
        rule: AcceptanceRule,
        matcher: GrammarMatcher | None = None,
    ) -> None:
        self._engine = engine
        self._drafter = Drafter(engine, DraftLease(), sampling, rule, matcher)

    def open(self, prompt: Prompt) -> None:
        """Read the prompt. Raises what `Engine.open` raises."""
        self._drafter.lease.slot, row = self._engine.open(prompt)[:2]
        self._drafter.begin(row)

    def close(self) -> None:
        """Give the slot back, where there is one."""
        lease = self._drafter.lease
        if lease.slot is not None:
            self._engine.close(lease.slot)
            lease.slot = None

    def follow(self, text_ids: Sequence[int]) -> None:
        run_alone(self._engine, self._drafter.follow(text_ids))

    def plan(self, tree: GuessTree, nodes: Sequence[Node]) -> DraftStep:
        return self._drafter.plan(tree, nodes)

    def guess(self, step: DraftStep, num_guesses: int, num_shared_ids: int) -> list[Guesses]:
        return run_alone(self._engine, self._drafter.guess(step, num_guesses, num_shared_ids))

    def row_after(self, text_ids: Sequence[int]) -> Array:
        return run_alone(self._engine, self._drafter.row_after(text_ids))

    def draft(self, text_ids: Sequence[int], num_tokens: int, num_shared_ids: int) -> Block:
        return run_alone(self._engine, self._drafter.draft(text_ids, num_tokens, num_shared_ids))


def num_common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens two texts begin with together."""
    return next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
