"""Many sessions, one engine: what waits is run as one forward pass. Used by one thread."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from skydraft.decoding.cloud_session import CloudSession, Outcome, Step
from skydraft.engines.base import Array, Engine, Extension, Slot
from skydraft.errors import EngineError, RemoteProtocolError
from skydraft.protocol import messages

log = logging.getLogger("skydraft.decoding")

Reply = tuple[CloudSession, messages.CloudMessage]


class Batcher:
    """Gives sessions their slots and runs their steps together."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots: dict[CloudSession, Slot] = {}

    @property
    def num_sessions(self) -> int:
        return len(self._slots)

    def admit(self, session: CloudSession) -> None:
        """Read the session's prompt.

        Raises:
            CacheOverflow, PromptRejected: from the engine.
        """
        prefilled = self._engine.open(session.terms.prompt)
        self._slots[session] = prefilled.slot
        session.prefilled(prefilled.logits)

    def release(self, session: CloudSession) -> None:
        """Give the session's slot back."""
        slot = self._slots.pop(session, None)
        if slot is None:
            return
        try:
            self._engine.close(slot)
        except Exception:  # an engine that fails must not take the other sessions with it
            log.exception("a slot could not be given back")

    def step(self) -> list[Reply]:
        """Run what waits as one forward pass; an empty list when nothing waits.

        A session that cannot go on, and no other, gets a fault and loses its slot.
        """
        work = [(session, step) for session in self._slots if (step := session.next_step()) is not None]
        replies = [self._finish(session, step, None) for session, step in work if not step.token_ids]
        return replies + self._run([item for item in work if item[1].token_ids])

    def _run(self, work: Sequence[tuple[CloudSession, Step]]) -> list[Reply]:
        if not work:
            return []
        try:
            all_logits = self._engine.extend(
                [Extension(self._slots[session], step.token_ids, step.parents) for session, step in work]
            )
        except Exception as error:
            if len(work) == 1:
                return [self._fail(work[0][0], error)]
            return [reply for item in work for reply in self._run([item])]
        return [self._finish(*item, logits) for item, logits in zip(work, all_logits, strict=True)]

    def _finish(self, session: CloudSession, step: Step, logits: Array | None) -> Reply:
        start = session.kv_length
        try:
            outcome = session.finish_step(step, logits)
            self._forget_rejected(self._slots[session], step, start, outcome)
        except Exception as error:
            return self._fail(session, error)
        return session, outcome.message

    def _forget_rejected(self, slot: Slot, step: Step, start: int, outcome: Outcome) -> None:
        num_kept = len(outcome.kept)
        if num_kept == len(step.token_ids):
            return
        if outcome.kept == tuple(range(num_kept)):
            self._engine.crop(slot, start + num_kept)
        else:
            self._engine.keep_path(slot, start, outcome.kept)

    def _fail(self, session: CloudSession, error: Exception) -> Reply:
        self.release(session)
        match error:
            case EngineError():
                code, sentence = messages.FaultCode.LIMIT, str(error)
            case RemoteProtocolError():
                code, sentence = messages.FaultCode.PROTOCOL, str(error)
            case _:
                log.error("a session failed", exc_info=error)
                code, sentence = messages.FaultCode.INTERNAL, "the cloud failed to judge a draft; its log says why"
        return session, messages.Fault(code, sentence, session.number)
