"""An engine for any Hugging Face decoder whose attention can be given a KV cache of slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from skydraft.core import Prompt, TokenSegment
from skydraft.engines.base import EngineLimits, Extension, Prefilled, Slot
from skydraft.engines.kv_cache import BatchPlan, SlotCache
from skydraft.engines.prompts import check_prompt
from skydraft.engines.slots import Placement, SlotBook, Tree
from skydraft.engines.vocabulary import Vocabulary
from skydraft.errors import ModelLoadError, PromptRejected

PROBE_LENGTH = 8
MAX_PROBE_DIFFERENCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}  # of the logits' norm


class DecoderModel(Protocol):
    """What a slot engine needs of a model."""

    vocabulary: Vocabulary
    num_layers: int
    device: torch.device
    dtype: torch.dtype

    def token_ids(self, prompt: Prompt) -> list[int]:
        """What the prompt takes in a slot: one id for each entry, placeholders for what is not text.

        Raises:
            PromptRejected: the model cannot take a segment.
        """

    def inputs(self, prompt: Prompt, token_ids: list[int]) -> Tensor:
        """What the model reads: token ids [num_tokens] or embeddings [num_tokens, hidden_size]."""

    def logits(self, inputs: Tensor, plan: BatchPlan, cache: SlotCache, rows: slice) -> Tensor:
        """One forward pass.

        Args:
            inputs: token ids [1, num_tokens] or embeddings [1, num_tokens, hidden_size].
            rows: of which tokens the logits are wanted.
        Returns:
            float32 [num_wanted, vocab_size].
        """

    def plain_logits(self, token_ids: Tensor) -> Tensor:
        """What Hugging Face computes without a cache: [1, num_tokens] to float32 [num_tokens, vocab_size]."""

    def use_slots(self) -> None:
        """From now on attention goes through slots."""


class SlotEngine:
    """Slots on a decoder model. What it computes for a slot does not depend on the other slots of a pass."""

    def __init__(self, model: DecoderModel, limits: EngineLimits, prefill_chunk: int) -> None:
        self._model = model
        self._book = SlotBook(limits)
        self._cache = SlotCache(model.num_layers, limits)
        self._prefill_chunk = prefill_chunk

    @property
    def name(self) -> str:
        return self._model.vocabulary.name

    @property
    def vocabulary(self) -> Vocabulary:
        return self._model.vocabulary

    @property
    def limits(self) -> EngineLimits:
        return self._book.limits

    @property
    def cache_bytes(self) -> int:
        """Size of the KV cache of all slots."""
        return self._cache.num_bytes()

    def open(self, prompt: Prompt) -> Prefilled:
        token_ids = self._model.token_ids(prompt)
        check_prompt(token_ids, self.vocabulary.size)
        slot = self._book.allocate(len(token_ids))
        try:
            logits = self._prefill(slot, prompt, token_ids)
        except BaseException:
            self.close(slot)
            raise
        return Prefilled(slot, logits)

    @torch.no_grad()
    def extend(self, extensions: Sequence[Extension]) -> list[Tensor]:
        placements = self._book.place(extensions, self.vocabulary.size)
        if not placements:
            return []
        in_slots = sorted(placements, key=lambda placement: placement.slot)
        plan = BatchPlan(in_slots, self._model.device)
        logits = self._run(plan, plan.token_ids, slice(None))
        self._book.commit(placements)
        counts = [len(placement.token_ids) for placement in in_slots]
        of_slot = dict(zip([p.slot for p in in_slots], logits.split_with_sizes(counts), strict=True))
        return [of_slot[extension.slot] for extension in extensions]

    def crop(self, slot: Slot, keep_length: int) -> None:
        self._book.crop(slot, keep_length)

    def keep_path(self, slot: Slot, start: int, path: Sequence[int]) -> None:
        sources = self._book.keep_path(slot, start, path)
        is_in_place = not len(sources) or list(path) == list(range(len(path)))
        if not is_in_place:
            self._cache.move(slot, sources, int(sources[0]) - path[0])

    def close(self, slot: Slot) -> None:
        self._cache.wipe(slot, self._book.release(slot))

    @torch.no_grad()
    def _prefill(self, slot: Slot, prompt: Prompt, token_ids: list[int]) -> Tensor:
        inputs = self._model.inputs(prompt, token_ids)
        for start in range(0, len(token_ids), self._prefill_chunk):
            ids = token_ids[start : start + self._prefill_chunk]
            placement = Placement(slot, ids, start, Tree(start, tuple(range(len(ids)))))
            plan = BatchPlan([placement], self._model.device)
            logits = self._run(plan, inputs[None, start : start + len(ids)], slice(-1, None))
        if not bool(torch.isfinite(logits).all()):
            raise PromptRejected(f"{self.name} gives no finite logits after this prompt of {len(token_ids)} tokens")
        return logits[0]

    def _run(self, plan: BatchPlan, inputs: Tensor, rows: slice) -> Tensor:
        self._cache.use(plan)
        return self._model.logits(inputs, plan, self._cache, rows)


def start_engine(model: DecoderModel, limits: EngineLimits, prefill_chunk: int) -> SlotEngine:
    """Make an engine and compare it with the plain model on a short text: models differ in what they take from a cache.

    Raises:
        ModelLoadError: the two do not agree.
    """
    probe = [index % model.vocabulary.size for index in range(1, 1 + min(PROBE_LENGTH, limits.max_length))]
    with torch.no_grad():
        expected = model.plain_logits(torch.tensor(probe, device=model.device)[None])
    model.use_slots()
    engine = SlotEngine(model, limits, prefill_chunk)
    difference = float((_probe(engine, probe) - expected).norm() / expected.norm())
    limit = MAX_PROBE_DIFFERENCE[model.dtype]
    if not difference <= limit:
        raise ModelLoadError(
            f"{engine.name} gives other logits with a KV cache of slots than without a cache (they differ by "
            f"{difference:.2g} of their norm, allowed is {limit:g}): skydraft cannot run this kind of model"
        )
    return engine


def _probe(engine: SlotEngine, token_ids: list[int]) -> Tensor:
    """Logits [num_tokens, vocab_size] of a text that is read in two steps."""
    prefilled = engine.open(Prompt((TokenSegment((token_ids[0],)),)))
    rows = [prefilled.logits[None]]
    if len(token_ids) > 1:
        rows += engine.extend([Extension(prefilled.slot, token_ids[1:])])
    engine.close(prefilled.slot)
    return torch.cat(rows)
