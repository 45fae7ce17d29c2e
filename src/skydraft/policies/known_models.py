"""Which published models share their token ids, so that one can draft for the other: a table, and a choice from it."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources

import msgspec

from skydraft.policies.tiers import LEAST_DRAFT_TOKENS_PER_S, MEMORY_SHARE, Capacity

TABLE_FILE = "known_models.toml"
# A draft that is not much smaller than the target takes as long as the target's own tokens.
MOST_OF_TARGET = 0.5


class KnownModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published model.

    name: without owner, tuning and quantization: Qwen2.5-0.5B. num_params: from its card.
    file: to draft with, as --draft takes it; quantization, size_gb: of this file. Empty and 0: none is known.
    """

    name: str
    num_params: float
    licence: str
    file: str = ""
    quantization: str = ""
    size_gb: float = 0.0


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Models of one vocabulary. tested: pairs of draft and target that skydraft has run; of others it was read."""

    name: str
    num_tokens: int
    models: tuple[KnownModel, ...]
    tested: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class KnownPair:
    """A draft for a target. is_tested: skydraft has run the two together; else their documentation says they fit."""

    draft: KnownModel
    target: KnownModel
    is_tested: bool


@dataclass(frozen=True)
class DraftProposal:
    """A known draft for a machine. most_tokens_per_s: what reading the weights for each token allows."""

    pair: KnownPair
    most_tokens_per_s: float

    @property
    def sentence(self) -> str:
        """For a person: the file, what it takes and what is known of it."""
        draft, target = self.pair.draft, self.pair.target
        known = "tested" if self.pair.is_tested else "by their documentation, not tested"
        return (
            f"--draft {draft.file} ({draft.num_params / 1e9:.2g} billion parameters, {draft.quantization}, "
            f"{draft.size_gb:g} GB, {draft.licence}) shares the token ids of {target.name}, {known}; here at most "
            f"{self.most_tokens_per_s:.0f} tokens/s"
        )


@functools.cache
def known_families() -> tuple[Family, ...]:
    """The table; the file comes with the package."""
    text = resources.files(__package__).joinpath(TABLE_FILE).read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text)["family"], tuple[Family, ...])


def known_drafts(target: str) -> list[KnownPair]:
    """The drafts that fit a target, the smallest first; none where the target is not known, or is the smallest.

    Args:
        target: a model's name, with or without owner, tuning, quantization and .gguf.
    """
    found = [(family, model) for family in known_families() for model in family.models if _is_named(target, model)]
    if not found:
        return []
    family, known = found[0]
    drafts = [model for model in family.models if model.file and model.num_params <= MOST_OF_TARGET * known.num_params]
    pairs = [KnownPair(draft, known, (draft.name, known.name) in family.tested) for draft in drafts]
    return sorted(pairs, key=lambda pair: pair.draft.num_params)


def propose_known_draft(target: str, capacity: Capacity) -> DraftProposal | None:
    """The largest known draft that a machine has the memory and the speed for.

    A step reads all weights once; that the memory's bandwidth allows a speed does not say that the processor keeps up.
    """
    proposals = [
        DraftProposal(pair, capacity.memory_bytes_per_s / (pair.draft.size_gb * 1e9))
        for pair in known_drafts(target)
        if pair.draft.size_gb * 1e9 <= capacity.free_memory_bytes * MEMORY_SHARE
    ]
    fitting = [proposal for proposal in proposals if proposal.most_tokens_per_s >= LEAST_DRAFT_TOKENS_PER_S]
    return fitting[-1] if fitting else None


def _is_named(name: str, model: KnownModel) -> bool:
    """Whether a name is that of a model, whatever is said of tuning and quantization after it."""
    return re.search(rf"(^|[^a-z0-9.-]|meta-){re.escape(model.name.lower())}($|[^a-z0-9])", name.lower()) is not None
