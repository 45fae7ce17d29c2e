"""An engine for any Hugging Face decoder whose attention can be given a KV cache of slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from skydraft.core import Prompt, TokenSegment
from skydraft.engines.base import (
    EngineLimits,
    Extension,
    PromptChunk,
    RowPromise,
)
from skydraft.engines.embedding_slots import EmbeddingSlots
from skydraft.engines.huggingface.kv_cache import BatchPlan, SlotCache
from skydraft.engines.huggingface.row_batch import PAGE, filled_up, find_row_unit
from skydraft.engines.huggingface.weights import memory_guard, quantize_linear
from skydraft.engines.settings import EngineSettings
from skydraft.engines.slots import Placement
from skydraft.errors import ModelLoadError
from skydraft.text.vocabulary import Vocabulary

PROBE_LENGTH = 8
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")  # what configs of mixtures of experts call it
MAX_PROBE_DIFFERENCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}  # of the logits' norm


class Inputs(NamedTuple):
    """What a model reads in one forward pass.

    token_ids: int [1, num_tokens].
    embedded: embeddings [num_embedded, hidden_size] that stand in place of the ids from an index on.
    """

    token_ids: Tensor
    embedded: Sequence[tuple[int, Tensor]] = ()


class DecoderModel(Protocol):
    """What a slot engine needs of a model.

    model: the Hugging Face model.
    """

    model: Any
    vocabulary: Vocabulary
    num_layers: int
    device: torch.device
    dtype: torch.dtype

    def token_ids(self, prompt: Prompt) -> list[int]:
        """The prompt as entries of a slot: one id each, placeholders for tensors.

        Raises:
            PromptRejected: the model cannot take a segment.
        """

    def embeddings(self, prompt: Prompt, token_ids: list[int]) -> Tensor | None:
        """The prompt's input embeddings [num_tokens, hidden_size]; None for a prompt of token ids only.

        Raises:
            PromptRejected: a tensor has values that the model cannot take.
        """

    def logits(self, inputs: Inputs, plan: BatchPlan, cache: SlotCache) -> Tensor:
        """One forward pass.

        Returns:
            float32 [num_wanted, vocab_size]: of the tokens in plan.rows, fillers included.
        """

    def plain_logits(self, token_ids: Tensor) -> Tensor:
        """Logits without a cache, by Hugging Face alone: [1, num_tokens] to float32 [num_tokens, vocab_size]."""

    def use_slots(self) -> None:
        """Replace the model's attention by that of slots."""


class SlotEngine(EmbeddingSlots[Tensor]):
    """Slots on a decoder model. What it computes for a slot does not depend on the other slots of a pass.

    Args:
        row_promise: where it is invariant, tokens attend one by one (`row_batch`); else as fast as can be.
    """

    def __init__(self, model: DecoderModel, limits: EngineLimits, prefill_chunk: int, row_promise: RowPromise) -> None:
        is_invariant = row_promise.is_invariant
        room = filled_up(limits.max_length, PAGE) if is_invariant else limits.max_length
        self._cache = SlotCache(model.num_layers, limits._replace(max_length=room))
        super().__init__(model.vocabulary, limits, self._cache, prefill_chunk, row_promise)
        self._is_invariant = is_invariant
        self._row_unit = find_row_unit(model.model, model.dtype) if is_invariant else 1
        self._model = model

    @property
    def cache_bytes(self) -> int:
        """Size of the KV cache of all slots."""
        return self._cache.num_bytes()

    @torch.no_grad()
    def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Tensor]:
        placements = self._book.place(extensions, self.vocabulary.size)
        if not placements:
            return []
        plan = BatchPlan(placements, self._model.device, self._is_invariant, self._row_unit)
        self._cache.use(plan)
        logits = self._model.logits(Inputs(plan.token_ids, self._embedded(plan.placements)), plan, self._cache)
        self._commit(placements)
        counts = [placement.num_rows for placement in plan.placements]
        rows = logits[: sum(counts)].split_with_sizes(counts)
        of_slot = dict(zip([placement.slot for placement in plan.placements], rows, strict=True))
        return [of_slot[extension.slot] for extension in extensions]

    def _token_ids(self, prompt: Prompt) -> list[int]:
        return self._model.token_ids(prompt)

    @torch.no_grad()
    def _embeddings(self, prompt: Prompt, token_ids: list[int]) -> Tensor | None:
        return self._model.embeddings(prompt, token_ids)

    def _embedded(self, placements: Sequence[Placement]) -> list[tuple[int, Tensor]]:
        """Embeddings that this pass reads of prompts with tensors, each with the index where they begin in the pass."""
        embedded, first = [], 0
        for placement in placements:
            embeddings = self._unread.get(placement.slot)
            if embeddings is not None:
                embedded.append((first, embeddings[placement.start : placement.end]))
            first += len(placement.token_ids)
        return embedded


def start_engine(model: DecoderModel, limits: EngineLimits, settings: EngineSettings) -> SlotEngine:
    """Make an engine on a loaded model, check it, and quantise the model where the settings say so.

    The check compares logits with the plain model's on a short text: models differ in what they take from a cache.

    Raises:
        ModelLoadError: the two differ, or the KV cache does not fit into memory.
    """
    with memory_guard(model.vocabulary.name, model.device):  # the KV cache is made when the model first runs
        probe = [index % model.vocabulary.size for index in range(1, 1 + min(PROBE_LENGTH, limits.max_length))]
        with torch.no_grad():
            expected = model.plain_logits(torch.tensor(probe, device=model.device)[None])
        model.use_slots()
        engine = SlotEngine(model, limits, settings.prefill_chunk, _row_promise(model, settings))
        difference = float((_probe(engine, probe) - expected).norm() / expected.norm())
    limit = MAX_PROBE_DIFFERENCE[model.dtype]
    if not difference <= limit:
        raise ModelLoadError(
            f"{engine.name} gives other logits with a KV cache of slots than without a cache (they differ by "
            f"{difference:.2g} of their norm, allowed is {limit:g}): skydraft cannot run this kind of model"
        )
    if settings.quantize:
        quantize_linear(model.model, settings)
    return engine


def _row_promise(model: DecoderModel, settings: EngineSettings) -> RowPromise:
    config = model.model.config.get_text_config()
    if settings.fast_math or settings.quantize:
        return RowPromise(False, "several rows are rounded in another way than one where they are computed together")
    if model.device.type != "cpu":
        return RowPromise(False, f"on {model.device.type} kernels are chosen by how many rows are computed together")
    if any(getattr(config, name, None) for name in EXPERT_COUNTS):
        return RowPromise(False, "how many rows an expert computes together depends on what else is read")
    if getattr(config, "attn_logit_softcapping", None):
        return RowPromise(
            False, "scores that are squeezed into a range are rounded by how many rows are computed together"
        )
    return RowPromise(
        True, f"on a CPU in {str(model.dtype).removeprefix('torch.')}, where each token attends by itself"
    )


def _probe(engine: SlotEngine, token_ids: list[int]) -> Tensor:
    """Logits [num_tokens, vocab_size] of a text that is read in two steps."""
    prefilled = engine.open(Prompt((TokenSegment((token_ids[0],)),)))
    rows = [prefilled.logits[None]]
    if len(token_ids) > 1:
        rows += engine.extend([Extension.chain(prefilled.slot, token_ids[1:])])
    engine.close(prefilled.slot)
    return torch.cat(rows)
