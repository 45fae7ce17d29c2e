"""What earlier texts left of a draft engine: slots that no text has at the moment, and what was read of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from skydraft.edge.drafter import num_common
from skydraft.engines.base import Array, Engine, KvPiece, Slot
from skydraft.scheduling.prefix_cache import BlockKeys, make_prefix_cache


class SpareSlot(NamedTuple):
    """A slot that a text gave back.

    token_ids: that it holds. num_base: of them those that the engine takes for its prompt; row: after these.
    """

    slot: Slot
    token_ids: Sequence[int]
    num_base: int
    row: Array


class ReadBefore:
    """Finds what a text need not read.

    Args:
        max_prefix_bytes: memory for what was read of prompts, beside the slots; 0: nothing is kept, in slots neither.

    spares: the one that was given back first is first.
    """

    def __init__(self, engine: Engine, max_prefix_bytes: int) -> None:
        self.spares: list[SpareSlot] = []
        self.keeps_slots = max_prefix_bytes > 0
        self._prefixes = make_prefix_cache(engine, max_prefix_bytes)

    def keys(self, token_ids: Sequence[int] | None) -> BlockKeys:
        """Of what a slot is to read; None: that is not only tokens."""
        return () if self._prefixes is None or token_ids is None else self._prefixes.keys_of_ids(token_ids)

    def take_spare(self, token_ids: Sequence[int] | None, keys: BlockKeys) -> SpareSlot | None:
        """The spare slot that holds most of a text, and nothing else, where more is not kept beside the slots."""
        if token_ids is None:
            return None
        fitting = [each for each in self.spares if num_common(each.token_ids, token_ids) >= each.num_base]
        best = max(fitting, key=lambda each: num_common(each.token_ids, token_ids), default=None)
        if best is None or num_common(best.token_ids, token_ids) < self._num_kept(keys, len(token_ids)):
            return None
        self.spares.remove(best)
        return best

    def is_read_by_one_of(self, others: Iterable[BlockKeys], keys: BlockKeys, num_prompt: int) -> bool:
        """Whether one of the prompts that are being read has more of a prompt's beginning than is kept."""
        if self._prefixes is None or not keys:
            return False
        wanted = self._prefixes.awaited(None, keys, num_prompt)
        return wanted is not None and any(wanted in of_other for of_other in others)

    def find(self, keys: BlockKeys, num_prompt: int) -> list[KvPiece]:
        """What a prompt of so many tokens may begin with."""
        return [] if self._prefixes is None else self._prefixes.find(None, keys, num_prompt)

    def keep(self, keys: BlockKeys, slot: Slot) -> None:
        """A slot has read the prompt with these keys."""
        if self._prefixes is not None:
            self._prefixes.expire()
            self._prefixes.keep(None, keys, slot)

    def keep_text(self, spare: SpareSlot) -> None:
        """The spare slot will be closed: keep what it holds, where the engine takes texts."""
        if self._prefixes is not None and self._prefixes.takes_text:
            self.keep(self._prefixes.keys_of_ids(spare.token_ids), spare.slot)

    def clear(self) -> None:
        """Forget everything; the slots are the caller's to close."""
        self.spares = []
        if self._prefixes is not None:
            self._prefixes.clear()

    def _num_kept(self, keys: BlockKeys, num_prompt: int) -> int:
        """Tokens of a prompt."""
        ready = () if self._prefixes is None else self._prefixes.ready(None, keys, num_prompt)
        return ready[-1].end if ready else 0
