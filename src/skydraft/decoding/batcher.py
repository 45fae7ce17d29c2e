"""Many sessions, one engine: offers, credit and prompts that wait are run as one forward pass. Used by one thread."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from array_api_compat import array_namespace

from skydraft.core import Prompt
from skydraft.decoding.cloud_session import CloudSession, Hearing, Outcome, Step
from skydraft.decoding.places import Member, Places
from skydraft.decoding.turns import Turns
from skydraft.engines.base import Array, ChunkedEngine, Engine, Extension, PromptChunk, Slot
from skydraft.engines.prompts import require_finite
from skydraft.errors import EngineError, PromptRejected, RemoteProtocolError
from skydraft.protocol import messages
from skydraft.sampling.choice import choices_together

log = logging.getLogger("skydraft.decoding")

MAX_LEAD = 32  # log tokens that a slot lacks, before they are read like a prompt


class BatchLimits(NamedTuple):
    """How much one forward pass takes.

    max_positions: tokens of all sessions together; an offer that is longer runs alone.
    prefill_tokens: of these, how many of prompts and of logs that are read again: by so much are others held up.
    """

    max_positions: int = 1024
    prefill_tokens: int = 256


class Answer(NamedTuple):
    """What a session says after a pass.

    message: a fault where the session is over.
    num_emitted: tokens that the verified log grew by, those that the device told left out.
    num_offered, num_accepted: draft tokens that asked for judgement, and those that held.
    """

    session: CloudSession
    message: messages.CloudMessage
    num_emitted: int = 0
    num_offered: int = 0
    num_accepted: int = 0


@dataclass
class Pass:
    """What a forward pass did.

    num_sessions: that took part, those whose prompts were read included.
    num_positions: tokens computed.
    num_evicted: sessions that lost their KV cache to others. num_restored: that were given a slot again.
    """

    answers: list[Answer] = field(default_factory=list)
    num_sessions: int = 0
    num_positions: int = 0
    num_evicted: int = 0
    num_restored: int = 0


@dataclass
class _Room:
    """What a pass that is being put together can still take."""

    positions: int
    prefill: int
    has_slots: bool = True
    is_untouched: bool = True

    def take(self, num_positions: int, is_prefill: bool) -> None:
        self.positions -= num_positions
        self.prefill -= num_positions if is_prefill else 0
        self.is_untouched = False

    @property
    def to_read(self) -> int:
        return max(0, min(self.positions, self.prefill))


class _Work(NamedTuple):
    """A member's part in a pass.

    item: what the engine is to run; None where the logits are known already.
    step: what is answered by it; None where a prompt or a log is read.
    """

    member: Member
    item: Extension | PromptChunk | None
    step: Step | None

    @property
    def num_positions(self) -> int:
        match self.item:
            case None:
                return 0
            case PromptChunk():
                return self.item.num_tokens
            case Extension():
                return len(self.item.token_ids)


class Batcher:
    """Gives sessions their slots and runs their steps together.

    Prompts are read in the passes that judge the offers of others, in chunks, where the engine is a ChunkedEngine;
    other engines read a prompt whole, one between two passes.
    """

    def __init__(self, engine: Engine, limits: BatchLimits) -> None:
        self._engine = engine
        self._chunked = engine if isinstance(engine, ChunkedEngine) else None
        self._limits = limits
        self._places = Places(engine)
        self._turns: Turns[Member] = Turns()
        self._members: dict[CloudSession, Member] = {}
        self._active: dict[Member, None] = {}  # who may have something to do, in the order in which they came
        self._number = 0
        self._pass = Pass()

    @property
    def is_busy(self) -> bool:
        """Whether `step` has something to do."""
        while self._active:
            member = next(iter(self._active))
            if _is_waiting(member):
                return True
            del self._active[member]
        return False

    def measure(self, prompt: Prompt) -> int:
        """How many tokens a prompt takes, for `admit`.

        Raises:
            CacheOverflow, PromptRejected: no slot can take it, now or later.
        """
        return self._places.measure(prompt)

    def admit(self, session: CloudSession, owner: Hashable, num_prompt: int) -> None:
        """From now on the session is served; its prompt is read when its turn comes.

        Args:
            owner: who shares the engine with others; where a pass cannot take all, each owner gets the same.
            num_prompt: tokens of its prompt, from `measure`.
        """
        session.room = self._engine.limits.max_length - num_prompt
        self._members[session] = Member(session, owner, num_prompt)
        self.wake(session)

    def wake(self, session: CloudSession) -> None:
        """The session has received something: it may have something to do."""
        self._active.setdefault(self._members[session])

    def release(self, session: CloudSession) -> None:
        """Forget the session and give its slot back."""
        member = self._members.pop(session, None)
        if member is not None:
            self._active.pop(member, None)
            self._places.take_back(member)

    def step(self) -> Pass:
        """Run what waits as one forward pass.

        A session that cannot go on, and no other, gets a fault and is forgotten.
        """
        self._number += 1
        self._pass = done = Pass()
        evicted_before = self._places.evicted
        work = self._choose()
        known = [part for part in work if part.item is None]
        self._finish(known, [None] * len(known))  # it costs nothing and waits for nobody
        self._run([part for part in work if part.item is not None])
        done.num_evicted = self._places.evicted - evicted_before
        done.num_sessions = len(work)
        return done

    # Who takes part

    def _choose(self) -> list[_Work]:
        room = _Room(self._limits.max_positions, self._limits.prefill_tokens)
        self._active = {member: None for member in self._active if _is_waiting(member)}
        chosen: list[_Work] = []
        for member in self._turns.order(list(self._active)):
            work = self._try(member, room)
            if work is not None:
                chosen.append(work)
        if len(chosen) == len(self._active):
            self._turns.settle()
        for work in chosen:  # who was served goes behind those who were not
            self._active[work.member] = self._active.pop(work.member)
        return chosen

    def _try(self, member: Member, room: _Room) -> _Work | None:
        try:
            work = self._plan(member, room)
        except Exception as error:
            self._fail(member, error)
            return None
        if work is not None:
            room.take(work.num_positions, is_prefill=work.step is None)
            self._turns.give(member.owner, work.num_positions)
            self._pass.num_positions += work.num_positions
            member.last_pass = self._number
        return work

    def _plan(self, member: Member, room: _Room) -> _Work | None:
        """What the member does in this pass; None: it must wait, or has nothing to do after all."""
        if member.slot is None and not self._lend(member, room):
            return None
        session, slot = member.session, member.slot
        assert slot is not None
        if member.num_unread:
            num_tokens = min(member.num_unread, room.to_read)
            return _Work(member, PromptChunk(slot, num_tokens), None) if num_tokens else None
        session.absorb_forced(MAX_LEAD)
        num_lead = len(session.token_ids) - session.kv_length
        if num_lead > MAX_LEAD:
            return _reread(member, slot, min(num_lead - 1, room.to_read))
        num_wanted = session.num_wanted
        if not num_wanted or (num_wanted > room.positions and not room.is_untouched):
            return None
        step = session.next_step()
        assert step is not None, "num_wanted counted something that next_step did not find"
        item = Extension(slot, step.token_ids, step.parents) if step.token_ids else None
        return _Work(member, item, step)

    def _lend(self, member: Member, room: _Room) -> bool:
        """Have the member get a slot; False where it must wait."""
        if not room.has_slots or not room.to_read:
            return False
        room.has_slots = self._places.lend(member, self._number)
        if not room.has_slots:
            return False
        self._pass.num_restored += not member.is_new
        member.last_pass = self._number
        if self._chunked is None:
            member.is_new = False
            room.take(member.num_prompt, is_prefill=True)
            room.prefill = 0  # it was a pass of its own: one is enough
            self._turns.give(member.owner, member.num_prompt)
            self._pass.num_positions += member.num_prompt
        return True

    # The pass

    def _run(self, work: Sequence[_Work]) -> None:
        if not work:
            return
        try:
            all_logits = self._extend([part.item for part in work if part.item is not None])
        except Exception as error:
            if len(work) == 1:
                self._fail(work[0].member, error)
            else:
                for part in work:
                    self._run([part])
            return
        self._finish(work, all_logits)

    def _extend(self, items: Sequence[Extension | PromptChunk]) -> list[Array]:
        if self._chunked is not None:
            return self._chunked.extend(items)
        return self._engine.extend([item for item in items if isinstance(item, Extension)])

    def _finish(self, work: Sequence[_Work], all_logits: Sequence[Array | None]) -> None:
        heard: list[tuple[_Work, Hearing]] = []
        for part, logits in zip(work, all_logits, strict=True):
            try:
                if part.step is not None:
                    heard.append((part, part.member.session.hear(part.step, logits)))
                else:
                    self._finish_reading(part, logits)
            except Exception as error:
                self._fail(part.member, error)
        choices = _choices([hearing for _, hearing in heard])
        for (part, hearing), token_ids in zip(heard, choices, strict=True):
            try:
                self._finish_step(part, hearing, token_ids)
            except Exception as error:
                self._fail(part.member, error)

    def _finish_reading(self, work: _Work, logits: Array) -> None:
        if isinstance(work.item, PromptChunk):
            self._finish_chunk(work.member, work.item, logits)
        else:
            work.member.session.caught_up(work.num_positions)

    def _finish_chunk(self, member: Member, chunk: PromptChunk, logits: Array) -> None:
        member.num_unread -= chunk.num_tokens
        if member.num_unread:
            return
        member.is_new = False
        require_finite(logits, self._engine.name)
        # A row of its own, for a session may keep it: a view would hold the logits of the whole pass.
        member.session.prefilled(array_namespace(logits).asarray(logits[-1], copy=True))

    def _finish_step(self, work: _Work, hearing: Hearing, choices: list[int] | None) -> None:
        member, step = work.member, hearing.step
        session = member.session
        start, kv_start = len(session.token_ids), session.kv_length
        outcome = session.decide(hearing, choices)
        self._forget_rejected(member.slot, step, kv_start, outcome)
        member.num_judged += work.num_positions
        num_new, num_offered, num_accepted = len(session.token_ids) - start, 0, 0
        if step.draft is not None:
            num_offered = len(step.draft.token_ids) - step.draft.num_forced
            num_new -= step.draft.num_forced
            has_own = isinstance(outcome.message, messages.Verdict) and outcome.message.token_id is not None
            num_accepted = num_new - has_own
        self._pass.answers.append(Answer(session, outcome.message, num_new, num_offered, num_accepted))

    def _forget_rejected(self, slot: Slot | None, step: Step, start: int, outcome: Outcome) -> None:
        assert slot is not None
        num_kept = len(outcome.kept)
        if num_kept == len(step.token_ids):
            return
        if outcome.kept == tuple(range(num_kept)):
            self._engine.crop(slot, start + num_kept)
        else:
            self._engine.keep_path(slot, start, outcome.kept)

    def _fail(self, member: Member, error: Exception) -> None:
        session = member.session
        self.release(session)
        match error:
            case PromptRejected():
                code, sentence = messages.FaultCode.PROMPT, str(error)
            case EngineError():
                code, sentence = messages.FaultCode.LIMIT, str(error)
            case RemoteProtocolError():
                code, sentence = messages.FaultCode.PROTOCOL, str(error)
            case _:
                log.error("a session failed", exc_info=error)
                code, sentence = messages.FaultCode.INTERNAL, "the cloud failed to judge a draft; its log says why"
        self._pass.answers.append(Answer(session, messages.Fault(code, sentence, session.number)))


def _choices(hearings: Sequence[Hearing]) -> list[list[int] | None]:
    """The target's choices for all of them at once; None where the session is to find out for itself."""
    choices: list[list[int] | None] = [None] * len(hearings)
    places = [place for place, hearing in enumerate(hearings) if hearing.question is not None]
    wanted = [hearing.question.wanted for hearing in hearings if hearing.question is not None]
    try:
        for place, token_ids in zip(places, choices_together(wanted), strict=True):
            choices[place] = token_ids
    except Exception:  # of one of them, which will raise it again; the others are well without this
        log.debug("the choices of %d sessions are made one by one", len(wanted), exc_info=True)
    return choices


def _is_waiting(member: Member) -> bool:
    return member.is_new or bool(member.num_unread) or bool(member.session.num_wanted)


def _reread(member: Member, slot: Slot, num_tokens: int) -> _Work | None:
    """Read a part of the log that the slot lacks."""
    start = member.session.kv_length
    token_ids = tuple(member.session.token_ids[start : start + num_tokens])
    return _Work(member, Extension(slot, token_ids, num_rows=0), None) if num_tokens else None
