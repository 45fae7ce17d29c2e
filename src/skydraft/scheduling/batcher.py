"""Many sessions, one engine: offers, credit and prompts that wait are run as one forward pass. Used by one thread.

A pass is scheduled, run and settled. Scheduling takes, in the order of the fair queue, what each user wants next until
the pass is full: first a slot, then its prompt in chunks, then the log that the slot lacks, then a step of its session.
Settling applies the logits: chunks bring sessions nearer to their first step, steps make answers.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from array_api_compat import array_namespace

from skydraft.core import Prompt
from skydraft.decoding.cloud_session import CloudSession, Outcome, Step
from skydraft.engines.base import Array, ChunkedEngine, Engine, Extension, PromptChunk, Slot
from skydraft.engines.prompt_checks import require_finite
from skydraft.errors import EngineError, PromptRejected, RemoteProtocolError
from skydraft.protocol import messages
from skydraft.sampling.choice import ChoiceRequest, choices_together
from skydraft.scheduling.fair_queue import FairQueue
from skydraft.scheduling.slot_lending import SlotLending, SlotUser

log = logging.getLogger("skydraft.scheduling")

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
    num_emitted: tokens that the verified log grew by, the forced ones left out.
    num_offered, num_accepted: draft tokens that asked for judgement, and those that were accepted.
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
class _Budget:
    """What a pass that is being put together can still take."""

    positions: int
    prefill: int
    has_slots: bool = True
    is_untouched: bool = True

    def spend(self, num_positions: int, is_prefill: bool) -> None:
        self.positions -= num_positions
        self.prefill -= num_positions if is_prefill else 0
        self.is_untouched = False

    @property
    def to_read(self) -> int:
        return max(0, min(self.positions, self.prefill))


class _Task(NamedTuple):
    """A user's part in a pass.

    item: what the engine is to run; None where the logits are known already.
    step: what is answered by it; None where a prompt or a log is read.
    """

    user: SlotUser
    item: Extension | PromptChunk | None
    step: Step | None
    num_positions: int


class Batcher:
    """Gives sessions their slots and runs their steps together.

    Prompts are read in the passes that judge the offers of others, in chunks, where the engine is a ChunkedEngine;
    other engines read a prompt whole, one between two passes.
    """

    def __init__(self, engine: Engine, limits: BatchLimits) -> None:
        self._engine = engine
        self._chunked = engine if isinstance(engine, ChunkedEngine) else None
        self._limits = limits
        self._lending = SlotLending(engine)
        self._fair_queue: FairQueue[SlotUser] = FairQueue()
        self._users: dict[CloudSession, SlotUser] = {}
        self._active: dict[SlotUser, None] = {}  # who may have something to do, in the order in which they came
        self._number = 0

    @property
    def is_busy(self) -> bool:
        """Whether `step` has something to do."""
        while self._active:
            user = next(iter(self._active))
            if user.is_waiting:
                return True
            del self._active[user]
        return False

    def measure(self, prompt: Prompt) -> int:
        """How many tokens a prompt takes, for `admit`.

        Raises:
            CacheOverflow, PromptRejected: no slot can take it, now or later.
        """
        return self._lending.measure(prompt)

    def admit(self, session: CloudSession, tenant: Hashable, num_prompt: int) -> None:
        """From now on the session is served; its prompt is read when its turn comes.

        Args:
            tenant: who shares the engine with others; where a pass cannot take all, each tenant gets the same.
            num_prompt: tokens of its prompt, from `measure`.
        """
        self._users[session] = SlotUser(session, tenant, num_prompt)
        self.wake(session)

    def wake(self, session: CloudSession) -> None:
        """The session has received something: it may have something to do."""
        self._active.setdefault(self._users[session])

    def release(self, session: CloudSession) -> None:
        """Forget the session and give its slot back."""
        user = self._users.pop(session, None)
        if user is not None:
            self._active.pop(user, None)
            self._lending.take_back(user)

    def step(self) -> Pass:
        """Run what waits as one forward pass.

        A session that cannot go on, and no other, gets a fault and is forgotten.
        """
        self._number += 1
        done, evicted_before = Pass(), self._lending.num_evicted
        tasks = self._schedule(done)
        known = [task for task in tasks if task.item is None]
        self._settle(known, [None] * len(known), done)  # it costs nothing and waits for nobody
        self._run([task for task in tasks if task.item is not None], done)
        done.num_sessions, done.num_evicted = len(tasks), self._lending.num_evicted - evicted_before
        return done

    # Schedule

    def _schedule(self, done: Pass) -> list[_Task]:
        budget = _Budget(self._limits.max_positions, self._limits.prefill_tokens)
        self._active = {user: None for user in self._active if user.is_waiting}
        tasks: list[_Task] = []
        for user in self._fair_queue.order(list(self._active)):
            try:
                task = self._plan(user, budget, done)
            except Exception as error:
                self._fail(user, error, done)
                continue
            if task is not None:
                budget.spend(task.num_positions, is_prefill=task.step is None)
                self._fair_queue.charge(user.tenant, task.num_positions)
                done.num_positions += task.num_positions
                user.last_pass = self._number
                tasks.append(task)
        if len(tasks) == len(self._active):
            self._fair_queue.reset()
        for task in tasks:  # who was served goes behind those who were not
            self._active[task.user] = self._active.pop(task.user)
        return tasks

    def _plan(self, user: SlotUser, budget: _Budget, done: Pass) -> _Task | None:
        """What the user does in this pass; None: it must wait, or has nothing to do after all."""
        if user.slot is None and not self._lend(user, budget, done):
            return None
        session, slot = user.session, user.slot
        assert slot is not None
        if user.num_unread:
            num_tokens = min(user.num_unread, budget.to_read)
            return _Task(user, PromptChunk(slot, num_tokens), None, num_tokens) if num_tokens else None
        session.take_forced(MAX_LEAD)
        if session.num_lead > MAX_LEAD:  # a part of the log is read again
            num_tokens = min(session.num_lead - 1, budget.to_read)
            token_ids = tuple(session.token_ids[session.kv_length : session.kv_length + num_tokens])
            return _Task(user, Extension(slot, token_ids, num_rows=0), None, num_tokens) if num_tokens else None
        step = session.next_step(None if budget.is_untouched else budget.positions)
        if step is None:
            return None
        parents = None if step.shape.is_chain else step.shape.parents
        item = Extension(slot, step.token_ids, parents) if step.token_ids else None
        return _Task(user, item, step, len(step.token_ids))

    def _lend(self, user: SlotUser, budget: _Budget, done: Pass) -> bool:
        """Get the user a slot; False where it must wait."""
        if not budget.has_slots or not budget.to_read:
            return False
        budget.has_slots = self._lending.lend(user, self._number)
        if not budget.has_slots:
            return False
        done.num_restored += not user.is_new
        user.last_pass = self._number
        if self._chunked is None:  # the prompt was a pass of its own: one is enough
            user.is_new = False
            budget.spend(user.num_prompt, is_prefill=True)
            budget.prefill = 0
            self._fair_queue.charge(user.tenant, user.num_prompt)
            done.num_positions += user.num_prompt
        return True

    # Run

    def _run(self, tasks: Sequence[_Task], done: Pass) -> None:
        """One pass; where it fails, one for each task, so that a bad one fails alone."""
        if not tasks:
            return
        items = [task.item for task in tasks if task.item is not None]
        try:
            if self._chunked is not None:
                all_logits = self._chunked.extend(items)
            else:
                all_logits = self._engine.extend([item for item in items if isinstance(item, Extension)])
        except Exception as error:
            if len(tasks) == 1:
                self._fail(tasks[0].user, error, done)
            else:
                for task in tasks:
                    self._run([task], done)
            return
        self._settle(tasks, all_logits, done)

    # Settle

    def _settle(self, tasks: Sequence[_Task], all_logits: Sequence[Array | None], done: Pass) -> None:
        """Take in the logits of each task; the choices of all sessions are made together."""
        prepared: list[tuple[_Task, Array, ChoiceRequest | None]] = []
        for task, logits in zip(tasks, all_logits, strict=True):
            try:
                if task.step is None:
                    self._settle_reading(task, logits)
                else:
                    rows = task.user.session.rows_for(task.step, logits)
                    prepared.append((task, rows, task.user.session.prepare(task.step, rows)))
            except Exception as error:
                self._fail(task.user, error, done)
        choices = _choices([request for _, _, request in prepared])
        for (task, rows, _), token_ids in zip(prepared, choices, strict=True):
            try:
                self._settle_step(task, rows, token_ids, done)
            except Exception as error:
                self._fail(task.user, error, done)

    def _settle_reading(self, task: _Task, logits: Array) -> None:
        user = task.user
        if not isinstance(task.item, PromptChunk):
            user.session.note_reread(task.num_positions)
            return
        user.num_unread -= task.num_positions
        if not user.num_unread:
            user.is_new = False
            require_finite(logits, self._engine.name)
            # A row of its own, for a session may keep it: a view would hold the logits of the whole pass.
            user.session.prefilled(array_namespace(logits).asarray(logits[-1], copy=True))

    def _settle_step(self, task: _Task, rows: Array, choices: list[int] | None, done: Pass) -> None:
        user, step = task.user, task.step
        assert step is not None
        session, draft = user.session, step.draft.draft
        start, kv_start = len(session.token_ids), session.kv_length
        outcome = session.finish(step, rows, choices)
        self._forget_rejected(user.slot, step, kv_start, outcome)
        user.num_judged += task.num_positions
        num_emitted = len(session.token_ids) - start - draft.num_forced
        has_own = isinstance(outcome.message, messages.Tokens) or outcome.message.token_id is not None
        num_accepted = num_emitted - has_own if step.num_offers else 0
        done.answers.append(Answer(session, outcome.message, num_emitted, draft.num_judged, num_accepted))

    def _forget_rejected(self, slot: Slot | None, step: Step, start: int, outcome: Outcome) -> None:
        assert slot is not None
        num_kept = len(outcome.kept)
        if num_kept == len(step.token_ids):
            return
        if outcome.kept == tuple(range(num_kept)):
            self._engine.crop(slot, start + num_kept)
        else:
            self._engine.keep_path(slot, start, outcome.kept)

    def _fail(self, user: SlotUser, error: Exception, done: Pass) -> None:
        session = user.session
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
        done.answers.append(Answer(session, messages.Fault(code, sentence, session.number)))


def _choices(requests: Sequence[ChoiceRequest | None]) -> list[list[int] | None]:
    """The target's choices for all of them at once; None where the session is to find out for itself."""
    choices: list[list[int] | None] = [None] * len(requests)
    asked = [(index, request) for index, request in enumerate(requests) if request is not None]
    try:
        answers = choices_together([request for _, request in asked])
    except Exception:  # of one of them, which will raise it again; the others are well without this
        log.debug("the choices of %d sessions are made one by one", len(asked), exc_info=True)
        return choices
    for (index, _), token_ids in zip(asked, answers, strict=True):
        choices[index] = token_ids
    return choices
