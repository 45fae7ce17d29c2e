"""Many sessions, one engine: offers, credit and prompts that wait are run as one forward pass. Used by one thread.

A pass is scheduled, run and settled. Scheduling goes through the users in the order of the fair queue and takes into
the pass what each does next, until it is full. Settling applies the logits. A user is a session, and its tenant, among
whom the fair queue divides, is whose it is: in a cloud the account of a key. What a user does next is its state:

    state          in a pass                                    next state
    without slot   is lent one, or waits for one                reading, or ready, where its slot was swapped out
    reading        reads a chunk of its prompt                  catching up, or ready, when the prompt is read
    catching up    reads again a part of its log: the slot      ready, when all but MAX_LEAD tokens are read
                   was another's, or the device told a text
    ready          runs a step of its session, if there is one  ready

From every state: `release` ends it, so does a failure, with a fault as its answer; and an idle user, or one that has
had its turn, loses its slot to another that waits: without slot.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from array_api_compat import array_namespace

from skydraft.core import Prompt
from skydraft.decoding.cloud_session import CloudSession, Outcome, Prepared, Step
from skydraft.engines.base import Array, ChunkedEngine, Engine, Extension, PromptChunk
from skydraft.engines.prompt_checks import check_prompt, require_finite, text_ids
from skydraft.errors import CacheOverflow, EngineError, PromptRejected, RemoteProtocolError
from skydraft.protocol import messages
from skydraft.sampling.choice import ChoiceRequest, choices_together
from skydraft.scheduling.fair_queue import FairQueue
from skydraft.scheduling.prefix_cache import PrefixCache
from skydraft.scheduling.slot_lending import SlotLending, SlotUser

log = logging.getLogger("skydraft.scheduling")

MAX_LEAD = 32  # log tokens that a slot lacks, before they are read like a prompt


@dataclass
class ForwardPass:
    """A forward pass: what it did, and, while it is put together, what it can still take.

    positions_left: tokens of all sessions together. prefill_left: of these, of prompts and of logs that are read again.
    has_slots: a user without a slot may get one. is_empty: nothing is part of it yet.
    outcomes: of the sessions that have something to say; a fault where one is over.
    num_sessions: that took part, those whose prompts were read included.
    num_positions: tokens computed.
    num_evicted: sessions that lost their KV cache to others. num_restored: that were given a slot again.
    num_prompt_read: tokens of prompts that were read. reused: of sessions that were given slots, how many tokens of
        their prompts need not be, for others had read them.
    """

    positions_left: int
    prefill_left: int
    has_slots: bool = True
    is_empty: bool = True
    outcomes: dict[CloudSession, Outcome] = field(default_factory=dict)
    num_sessions: int = 0
    num_positions: int = 0
    num_evicted: int = 0
    num_restored: int = 0
    num_prompt_read: int = 0
    reused: dict[CloudSession, int] = field(default_factory=dict)

    def take(self, num_positions: int, is_prefill: bool) -> None:
        """Make work of so many tokens part of it."""
        self.positions_left -= num_positions
        self.prefill_left -= num_positions if is_prefill else 0
        self.num_positions += num_positions
        self.is_empty = False

    @property
    def to_read(self) -> int:
        """Tokens of prompts and logs that it can still take."""
        return max(0, min(self.positions_left, self.prefill_left))


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

    Args:
        max_positions: tokens of all sessions that one pass takes; an offer that is longer runs alone.
        prefill_tokens: of these, how many of prompts and of logs that are read again: others wait for these.
        max_swap_bytes: memory for what the slots held that sessions lost; what is not kept is read again.
        prefixes: what was read of earlier prompts; None: each is read whole.
    """

    def __init__(
        self,
        engine: Engine,
        max_positions: int = 1024,
        prefill_tokens: int = 256,
        max_swap_bytes: int = 0,
        prefixes: PrefixCache | None = None,
    ) -> None:
        self._engine = engine
        self._chunked = engine if isinstance(engine, ChunkedEngine) else None
        self._max_positions = max_positions
        self._prefill_tokens = prefill_tokens
        self._prefixes = prefixes
        self._lending = SlotLending(engine, max_swap_bytes, prefixes)
        self._fair_queue: FairQueue[SlotUser] = FairQueue()
        self._users: dict[CloudSession, SlotUser] = {}
        self._active: dict[SlotUser, None] = {}  # those that may have something to do, in order
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
        """How many tokens a prompt takes, for `admit`; for an engine that cannot say, its token ids are counted.

        Raises:
            CacheOverflow, PromptRejected: no slot can take it, now or later.
        """
        if self._chunked is not None:
            return self._chunked.measure(prompt)
        token_ids, most = text_ids(prompt), self._engine.limits.max_length
        check_prompt(token_ids, self._engine.vocabulary.size)
        if len(token_ids) > most:
            raise CacheOverflow(f"the prompt has {len(token_ids)} tokens and a slot has room for {most}: shorten it")
        return len(token_ids)

    def admit(self, session: CloudSession, tenant: Hashable, num_prompt: int, scope: Hashable = None) -> None:
        """From now on the session is served; its prompt is read when its turn comes.

        Args:
            tenant: of the session; where a pass cannot take all work, each tenant gets the same.
            num_prompt: tokens of its prompt, from `measure`.
            scope: what was read of prompts is shared within it, and with no other.
        """
        keys = () if self._prefixes is None else self._prefixes.keys(session.terms.prompt)
        self._users[session] = SlotUser(session, tenant, num_prompt, scope, keys)
        self.wake(session)

    def wake(self, session: CloudSession) -> None:
        """The session has received something: it may have something to do."""
        self._active.setdefault(self._users[session])

    def release(self, session: CloudSession) -> None:
        """Forget the session and give its slot back."""
        user = self._users.get(session)
        if user is not None:
            self._lending.keep_text(user)
            self._forget(user)

    def _forget(self, user: SlotUser) -> None:
        self._users.pop(user.session, None)
        self._active.pop(user, None)
        self._lending.take_back(user)

    def step(self) -> ForwardPass:
        """Run what waits as one forward pass.

        A session that cannot go on, and no other, gets a fault and is forgotten.
        """
        self._number += 1
        forward_pass = ForwardPass(self._max_positions, self._prefill_tokens)
        evicted_before = self._lending.num_evicted
        tasks = self._schedule(forward_pass)
        known = [task for task in tasks if task.item is None]
        if known:
            self._settle(known, [None] * len(known), forward_pass)  # before the pass: their logits are there already
        self._run([task for task in tasks if task.item is not None], forward_pass)
        forward_pass.num_sessions, forward_pass.num_evicted = len(tasks), self._lending.num_evicted - evicted_before
        return forward_pass

    # Schedule

    def _schedule(self, forward_pass: ForwardPass) -> list[_Task]:
        self._active = {user: None for user in self._active if user.is_waiting}
        tasks: list[_Task] = []
        for user in self._fair_queue.order(list(self._active)):
            try:
                task = self._plan(user, forward_pass)
            except Exception as error:
                self._fail(user, error, forward_pass)
                continue
            if task is not None:
                forward_pass.take(task.num_positions, is_prefill=task.step is None)
                forward_pass.num_prompt_read += task.num_positions if isinstance(task.item, PromptChunk) else 0
                self._fair_queue.charge(user.tenant, task.num_positions)
                user.last_pass = self._number
                tasks.append(task)
        if len(tasks) == len(self._active):
            self._fair_queue.reset()
        for task in tasks:  # those that were served go behind those that were not
            self._active[task.user] = self._active.pop(task.user)
        return tasks

    def _plan(self, user: SlotUser, forward_pass: ForwardPass) -> _Task | None:
        """What the user does in this pass; None: it must wait, or has nothing to do after all."""
        if user.slot is None and not self._lend(user, forward_pass):
            return None
        session, slot = user.session, user.slot
        assert slot is not None
        if user.num_unread:
            num_tokens = min(user.num_unread, forward_pass.to_read)
            return _Task(user, PromptChunk(slot, num_tokens), None, num_tokens) if num_tokens else None
        session.take_forced(MAX_LEAD)
        if session.num_lead > MAX_LEAD:  # a part of the log is read again
            num_tokens = min(session.num_lead - 1, forward_pass.to_read)
            token_ids = tuple(session.token_ids[session.kv_length : session.kv_length + num_tokens])
            return _Task(user, Extension.chain(slot, token_ids, num_rows=0), None, num_tokens) if num_tokens else None
        step = session.next_step(None if forward_pass.is_empty else forward_pass.positions_left)
        if step is None:
            return None
        item = Extension(slot, step.token_ids, step.shape) if step.token_ids else None
        return _Task(user, item, step, len(step.token_ids))

    def _lend(self, user: SlotUser, forward_pass: ForwardPass) -> bool:
        """Get the user a slot; False where it must wait."""
        if not forward_pass.has_slots or not forward_pass.to_read or self._lending.is_read_by_another(user):
            return False
        forward_pass.has_slots = self._lending.lend(user, self._number)
        if not forward_pass.has_slots:
            return False
        forward_pass.num_restored += not user.is_new
        if user.num_reused:
            forward_pass.reused[user.session] = user.num_reused
        user.last_pass = self._number
        if self._chunked is None:  # the prompt was a pass of its own: one is enough
            user.is_new = False
            forward_pass.take(user.num_prompt, is_prefill=True)
            forward_pass.num_prompt_read += user.num_prompt
            forward_pass.prefill_left = 0
            self._fair_queue.charge(user.tenant, user.num_prompt)
        return True

    # Run

    def _run(self, tasks: Sequence[_Task], forward_pass: ForwardPass) -> None:
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
                self._fail(tasks[0].user, error, forward_pass)
            else:
                for task in tasks:
                    self._run([task], forward_pass)
            return
        self._settle(tasks, all_logits, forward_pass)

    # Settle

    def _settle(self, tasks: Sequence[_Task], all_logits: Sequence[Array | None], forward_pass: ForwardPass) -> None:
        """Take in the logits of each task; the choices of all sessions are made together."""
        prepared: list[tuple[_Task, Prepared]] = []
        for task, logits in zip(tasks, all_logits, strict=True):
            try:
                if task.step is None:
                    self._settle_reading(task, logits)
                else:
                    prepared.append((task, task.user.session.prepare(task.step, logits)))
            except Exception as error:
                self._fail(task.user, error, forward_pass)
        choices = _choices([each.request for _, each in prepared])
        for (task, each), token_ids in zip(prepared, choices, strict=True):
            try:
                self._settle_step(task, each, token_ids, forward_pass)
            except Exception as error:
                self._fail(task.user, error, forward_pass)

    def _settle_reading(self, task: _Task, logits: Array) -> None:
        user = task.user
        if not isinstance(task.item, PromptChunk):
            user.session.note_reread(task.num_positions)
            return
        user.num_unread -= task.num_positions
        if not user.num_unread:
            user.is_new = False
            require_finite(logits, self._engine.name)
            self._lending.keep_prompt(user)
            # A row of its own, for a session may keep it: a view would hold the logits of the whole pass.
            user.session.prefilled(array_namespace(logits).asarray(logits[-1], copy=True))

    def _settle_step(
        self, task: _Task, prepared: Prepared, choices: list[int] | None, forward_pass: ForwardPass
    ) -> None:
        user, session = task.user, task.user.session
        kv_start = session.kv_length
        outcome = session.finish(prepared, choices)
        num_kept, slot = len(outcome.kept), user.slot
        assert slot is not None
        if num_kept < len(prepared.step.token_ids):  # the engine forgets what was rejected
            if outcome.kept == tuple(range(num_kept)):
                self._engine.crop(slot, kv_start + num_kept)
            else:
                self._engine.keep_path(slot, kv_start, outcome.kept)
        user.num_judged += task.num_positions
        forward_pass.outcomes[session] = outcome

    def _fail(self, user: SlotUser, error: Exception, forward_pass: ForwardPass) -> None:
        session = user.session
        self._forget(user)
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
        forward_pass.outcomes[session] = Outcome(messages.Fault(code, sentence, session.number))


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
