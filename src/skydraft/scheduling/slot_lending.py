"""Lends the engine's slots to sessions, which take turns where there are more of them than slots.

What the slot of a session held is swapped out when another gets it, up to a size in all; beyond that the one that lost
its slot first is forgotten, and its prompt and text will be read again. A slot that reads a prompt begins with what
earlier prompts of the same scope have read of it (`prefix_cache`).
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass

from skydraft.core import AcceptanceRule, Prompt, SamplingParams
from skydraft.decoding.cloud_session import CloudSession
from skydraft.engines.base import ChunkedEngine, Engine, NarrowEngine, Prefilled, Slot, SwappedSlot
from skydraft.scheduling.prefix_cache import BlockKeys, PrefixCache

log = logging.getLogger("skydraft.scheduling")

LEAST_TURN = 64  # positions that a session may have judged before another, which waits, takes its slot


@dataclass(eq=False)
class SlotUser:
    """A session and what the engine keeps of it.

    tenant: the engine is shared among tenants.
    num_prompt: tokens of its prompt.
    scope, keys: of its prompt in the prefix cache.
    slot: None: it has none, or not any more.
    swapped: what the slot that it lost held; None: nothing is kept of it.
    num_unread: tokens of the prompt that the slot has yet to read.
    num_reused: tokens of the prompt that its slot, when it was filled, need not read.
    num_reread: tokens that its slot had to read before it could go on.
    num_judged: positions since then.
    last_pass: the number of the last forward pass that it was part of.
    is_new: its prompt has never been read.
    """

    session: CloudSession
    tenant: Hashable
    num_prompt: int
    scope: Hashable = None
    keys: BlockKeys = ()
    slot: Slot | None = None
    swapped: SwappedSlot | None = None
    num_unread: int = 0
    num_reused: int = 0
    num_reread: int = 0
    num_judged: int = 0
    last_pass: int = 0
    is_new: bool = True

    @property
    def is_waiting(self) -> bool:
        """Whether it has something to run."""
        return self.is_new or bool(self.num_unread) or self.session.has_work

    @property
    def is_idle(self) -> bool:
        """Whether it could lose its slot without delay to its device."""
        return not self.num_unread and not self.session.has_work

    @property
    def has_had_its_turn(self) -> bool:
        """Whether it may lose its slot though it has work: as much was judged in it as it cost to fill."""
        return not self.num_unread and self.num_judged >= max(LEAST_TURN, self.num_reread)


class SlotLending:
    """The slots of an engine; the user that has been idle longest loses its slot first.

    Args:
        max_swap_bytes: of all that is swapped out.
        prefixes: of a ChunkedEngine; None: each prompt is read whole.

    num_evicted: users that lost their slots to others so far.
    """

    def __init__(self, engine: Engine, max_swap_bytes: int = 0, prefixes: PrefixCache | None = None) -> None:
        self.num_evicted = 0
        self._prefixes = prefixes
        self._max_swap_bytes = max_swap_bytes
        self._swapped: dict[SlotUser, int] = {}  # their sizes, of the one that lost its slot first first
        self._engine = engine
        self._chunked = engine if isinstance(engine, ChunkedEngine) else None
        self._users: dict[SlotUser, Slot] = {}

    def lend(self, user: SlotUser, this_pass: int) -> bool:
        """Give a user a slot, another's if need be; False where all are in use.

        It holds what the user's last one held, where that was swapped out. Else its prompt is read then, or is still
        to be read where the engine is a ChunkedEngine.

        Args:
            this_pass: number of the pass under way: its users keep their slots.
        Raises:
            EngineError: the engine does not take the prompt after all.
        """
        if len(self._users) >= self._engine.limits.num_slots:
            loser = self._loser(this_pass)
            if loser is None:
                return False
            self._evict(loser, user)
        if self._chunked is not None and user.swapped is not None:
            user.slot, user.num_reread, user.num_reused = self._chunked.swap_in(user.swapped), 0, 0
            self._forget_swapped(user)
        else:
            user.slot = self._fill(user)
            user.num_reread = (user.num_unread or user.num_prompt) + len(user.session.token_ids)
        user.num_judged = 0
        self._users[user] = user.slot
        return True

    def is_read_by_another(self, user: SlotUser) -> bool:
        """Whether a slot reads more of the beginning of a user's prompt than is kept: it is better to wait for that."""
        if self._prefixes is None or user.swapped is not None:
            return False
        wanted = self._prefixes.awaited(user.scope, user.keys, user.num_prompt)
        if wanted is None:
            return False
        return any(other.num_unread and other.scope == user.scope and wanted in other.keys for other in self._users)

    def keep_prompt(self, user: SlotUser) -> None:
        """The user's slot has read its prompt: others may begin with it."""
        if self._prefixes is not None and user.slot is not None:
            self._prefixes.keep(user.scope, user.keys, user.slot)

    def keep_text(self, user: SlotUser) -> None:
        """The user's text has ended: others may begin with what its slot holds, where the engine takes that."""
        if self._prefixes is None or user.slot is None or user.num_unread or not self._prefixes.takes_text:
            return
        session = user.session
        keys = self._prefixes.keys(session.terms.prompt, session.token_ids[: session.kv_length])
        self._prefixes.keep(user.scope, keys, user.slot)

    def take_back(self, user: SlotUser) -> None:
        """The user's slot is free again, and what is kept of it is forgotten; its session is not told."""
        self._forget_swapped(user)
        slot, user.slot, user.num_unread = self._users.pop(user, None), None, 0
        if slot is None:
            return
        try:
            self._engine.close(slot)
        except Exception:  # an engine that fails must not take the other sessions with it
            log.exception("a slot could not be given back")

    def _loser(self, this_pass: int) -> SlotUser | None:
        others = [user for user in self._users if user.last_pass < this_pass]
        idle = [user for user in others if user.is_idle]
        candidates = idle or [user for user in others if user.has_had_its_turn]
        return min(candidates, key=lambda user: user.last_pass, default=None)

    def _evict(self, loser: SlotUser, winner: SlotUser) -> None:
        if self._chunked is not None and self._max_swap_bytes:
            loser.swapped = self._chunked.swap_out(self._users[loser])
            loser.slot = None
            del self._users[loser]
            self._swapped[loser] = loser.swapped.num_bytes
            self._swapped.pop(winner, None)  # will be swapped in
            while sum(self._swapped.values()) > self._max_swap_bytes:
                first = next(iter(self._swapped))
                self._forget_swapped(first)
                first.session.forget_cache()
        else:
            self.take_back(loser)
            loser.session.forget_cache()
        self.num_evicted += 1

    def _fill(self, user: SlotUser) -> Slot:
        """A slot that has read the user's prompt, or, of a ChunkedEngine, is to read it."""
        terms = user.session.terms
        if self._chunked is not None:
            prefixes = self._prefixes
            read = [] if prefixes is None else prefixes.find(user.scope, user.keys, user.num_prompt)
            slot = self._chunked.reserve(terms.prompt, read)
            user.num_reused = sum(piece.num_tokens for piece in read)
            user.num_unread = user.num_prompt - user.num_reused
            return slot
        slot, logits = open_slot(self._engine, terms.prompt, terms.sampling, terms.rule, terms.num_shared_ids)
        user.session.prefilled(logits)
        return slot

    def _forget_swapped(self, user: SlotUser) -> None:
        user.swapped = None
        self._swapped.pop(user, None)


def open_slot(
    engine: Engine, prompt: Prompt, sampling: SamplingParams, rule: AcceptanceRule, num_ids: int | None = None
) -> Prefilled:
    """Open a slot; a NarrowEngine is told how many logits of each row decide.

    Args:
        num_ids: ids from here on are never chosen; None: all may be.
    Raises:
        CacheOverflow, PromptRejected: from the engine.
        EngineError: the engine cannot tell as many logits as they need.
    """
    if isinstance(engine, NarrowEngine):
        return engine.open_narrow(prompt, rule.num_logits(sampling), num_ids)
    return engine.open(prompt)
