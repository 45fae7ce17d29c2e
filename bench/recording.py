"""What a device offers on the way through a text, written down once."""

from __future__ import annotations

from collections.abc import Sequence

from bench.replay import Script, write_alone
from skydraft.core import Draft, Prompt, SamplingParams
from skydraft.decoding.guess_tree import GuessTree, Node
from skydraft.edge.draft_lease import DraftLease, run_alone
from skydraft.edge.tree_reader import TreeReader
from skydraft.engines.base import Engine
from skydraft.policies.confidence import Confidence
from skydraft.policies.way import Way
from skydraft.sampling.guesses import best_guesses

MAX_OFFER = 64  # nodes


def record(target: Engine, draft: Engine, prompt: Prompt, sampling: SamplingParams, way: Way) -> Script:
    """Write a text, and note what a device would offer that has all the time it wants before each pass.

    It has given credit, so that the cloud writes on where nothing is worth an offer, and writes the first token from
    the prompt's logits.

    Args:
        way: of its numbers these count: least_offer_prob, width, num_guesses.
    """
    token_ids = write_alone(target, prompt, sampling)
    slot, row = draft.open(prompt)
    device = _Device(draft, TreeReader(draft, DraftLease(slot), row, 0), sampling, way)
    offers: dict[int, Draft] = {}
    start = 1
    while start < len(token_ids):
        offer = device.offer(token_ids[:start])
        if offer is not None:
            offers[start] = offer
        start += 1 + (0 if offer is None else num_held(offer, token_ids))
    draft.close(slot)
    return Script(prompt, sampling, token_ids, offers)


def num_held(offer: Draft, token_ids: Sequence[int]) -> int:
    """How many tokens of an offer are those of the text."""
    row, num_tokens = 0, 0
    for node, (parent, token_id) in enumerate(zip(offer.shape.parents, offer.token_ids, strict=True)):
        position = offer.start + num_tokens
        if parent == row and position < len(token_ids) and token_id == token_ids[position]:
            row, num_tokens = node + 1, num_tokens + 1
    return num_tokens


class _Device:
    """Reads all guesses that are worth an offer."""

    def __init__(self, engine: Engine, reader: TreeReader, sampling: SamplingParams, way: Way) -> None:
        self._engine = engine
        self._tree = GuessTree(Confidence())
        self._num_ids = engine.vocabulary.num_tokens
        self._reader = reader
        self._sampling = sampling
        self._way = way

    def offer(self, text_ids: Sequence[int]) -> Draft | None:
        """What is offered behind this text; None where nothing is likely enough."""
        tree, least_prob = self._tree, self._way.least_offer_prob
        tree.advance(text_ids[tree.length :])
        while nodes := tree.best_to_read(self._way.width, least_prob, self._sampling.max_tokens):
            self._read(nodes)
        offered = tree.unoffered(least_prob, MAX_OFFER)
        return tree.offer(offered) if offered else None

    def _read(self, nodes: list[Node]) -> None:
        self._tree.read(nodes)
        rows = run_alone(self._engine, self._reader.run(self._reader.plan(self._tree, nodes)))[-len(nodes) :]
        positions = [node.position + 1 for node in nodes]
        all_guesses = best_guesses(rows, self._sampling, positions, self._way.num_guesses)
        for node, guesses in zip(nodes, all_guesses, strict=True):
            self._tree.grow(node, guesses, self._num_ids)
