"""Who holds a slot of the engine: sessions take turns where there are more of them than slots."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass

from skydraft.core import Prompt
from skydraft.decoding.cloud_session import CloudSession
from skydraft.decoding.width import open_slot
from skydraft.engines.base import ChunkedEngine, Engine, Slot
from skydraft.engines.prompts import check_prompt, text_ids
from skydraft.errors import CacheOverflow

log = logging.getLogger("skydraft.decoding")

LEAST_TURN = 64  # positions that a session may have judged before another, which waits, takes its slot


@dataclass(eq=False)
class Member:
    """A session and what the engine holds of it.

    owner: who shares the engine with others.
    num_prompt: tokens of its prompt.
    slot: None: it has no KV cache, or not any more.
    num_unread: tokens of the prompt that the slot has yet to read.
    num_reread: tokens that its slot had to read before it could go on.
    num_judged: positions since then.
    last_pass: the number of the last forward pass that it was part of.
    is_new: its prompt has never been read.
    """

    session: CloudSession
    owner: Hashable
    num_prompt: int
    slot: Slot | None = None
    num_unread: int = 0
    num_reread: int = 0
    num_judged: int = 0
    last_pass: int = 0
    is_new: bool = True

    @property
    def is_idle(self) -> bool:
        """Whether it could lose its slot and nobody would wait for it."""
        return not self.num_unread and not self.session.num_wanted

    @property
    def has_had_its_turn(self) -> bool:
        """Whether it may be asked to wait: its slot was worth what it cost to get it."""
        return not self.num_unread and self.num_judged >= max(LEAST_TURN, self.num_reread)


class Places:
    """The slots of an engine, lent to members; who has been idle longest loses its slot first.

    evicted: how many lost their slots to others so far.
    """

    def __init__(self, engine: Engine) -> None:
        self.evicted = 0
        self._engine = engine
        self._chunked = engine if isinstance(engine, ChunkedEngine) else None
        self._holders: dict[Member, Slot] = {}

    def measure(self, prompt: Prompt) -> int:
        """How many tokens a prompt takes; an engine that cannot say counts its token ids.

        Raises:
            CacheOverflow, PromptRejected: no slot can take it, now or later.
        """
        if self._chunked is not None:
            return self._chunked.measure(prompt)
        token_ids, limits = text_ids(prompt), self._engine.limits
        check_prompt(token_ids, self._engine.vocabulary.size)
        if len(token_ids) > limits.max_length:
            raise CacheOverflow(
                f"the prompt has {len(token_ids)} tokens and a slot has room for {limits.max_length}: shorten it"
            )
        return len(token_ids)

    def lend(self, member: Member, this_pass: int) -> bool:
        """Give a member a slot, another's if need be; False where all are in use.

        Its prompt is read then, or is still to be read where the engine is a ChunkedEngine.

        Args:
            this_pass: number of the pass under way: its members keep their slots.
        Raises:
            EngineError: the engine does not take the prompt after all.
        """
        if len(self._holders) >= self._engine.limits.num_slots and not self._make_room(this_pass):
            return False
        terms = member.session.terms
        if self._chunked is None:
            member.slot, logits = open_slot(self._engine, terms.prompt, terms.sampling, terms.rule)
            member.session.prefilled(logits)
        else:
            member.slot, member.num_unread = self._chunked.reserve(terms.prompt), member.num_prompt
        self._holders[member] = member.slot
        member.num_judged, member.num_reread = 0, member.num_prompt + len(member.session.token_ids)
        return True

    def take_back(self, member: Member) -> None:
        """The member's slot is free again; its session knows nothing of it."""
        slot, member.slot, member.num_unread = self._holders.pop(member, None), None, 0
        if slot is None:
            return
        try:
            self._engine.close(slot)
        except Exception:  # an engine that fails must not take the other sessions with it
            log.exception("a slot could not be given back")

    def _make_room(self, this_pass: int) -> bool:
        others = [member for member in self._holders if member.last_pass < this_pass]
        idle = [member for member in others if member.is_idle]
        candidates = idle or [member for member in others if member.has_had_its_turn]
        if not candidates:
            return False
        loser = min(candidates, key=lambda member: member.last_pass)
        self.take_back(loser)
        loser.session.lost_cache()
        self.evicted += 1
        return True
