"""All sessions of a cloud: who they belong to, how they are resumed, when they are forgotten.

Used by the scheduler's thread alone: messages in, messages out, the time is an argument.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import TypeAlias

from skydraft.config import CloudSettings
from skydraft.decoding.batcher import Batcher
from skydraft.decoding.cloud_session import CloudSession, SessionTerms
from skydraft.decoding.edge_session import mark_of
from skydraft.engines.base import Engine
from skydraft.errors import CacheOverflow, CloudFault, PromptRejected, RemoteProtocolError
from skydraft.protocol import messages, packing, prompts
from skydraft.protocol.messages import FaultCode

log = logging.getLogger("skydraft.cloud")

ConnectionId: TypeAlias = int
Reply = tuple[ConnectionId, messages.CloudMessage]

RESUME_KEY_BYTES = 16
BUSY_RETRY_S = 1.0


@dataclass(eq=False)
class Seat:
    """A session and who holds it now.

    connection: None while the device is away, since `away_since`.
    """

    session: CloudSession
    key: bytes
    connection: ConnectionId | None
    away_since: float = 0.0


class Hub:
    """Sessions of many connections over one engine."""

    def __init__(self, engine: Engine, settings: CloudSettings) -> None:
        self._batcher = Batcher(engine)
        self._engine = engine
        self._settings = settings
        self._mark = mark_of(engine.vocabulary)
        self._limits = messages.Limits(engine.limits.max_length, settings.max_draft_tokens, settings.max_in_flight)
        self._by_key: dict[bytes, Seat] = {}
        self._by_address: dict[tuple[ConnectionId, int], Seat] = {}
        self._by_session: dict[CloudSession, Seat] = {}

    @property
    def num_sessions(self) -> int:
        return len(self._by_key)

    def receive(self, connection: ConnectionId, message: messages.EdgeMessage) -> list[Reply]:
        """Take in a message.

        Returns:
            What to send at once, to whom. Faults end their session.
        """
        try:
            match message:
                case messages.Open():
                    return [(connection, reply) for reply in self._open(connection, message)]
                case messages.Close():
                    self._forget(self._by_address.get((connection, message.session)))
                case messages.Draft() | messages.Generate():
                    self._seat_at(connection, message.session).session.receive(message)
            return []
        except CloudFault as fault:
            return [(connection, self._refuse(connection, message.session, fault))]
        except RemoteProtocolError as error:
            broken = CloudFault(FaultCode.PROTOCOL, str(error))
            return [(connection, self._refuse(connection, message.session, broken))]

    def step(self) -> list[Reply]:
        """Run what waits as one forward pass; an empty list when nothing waits."""
        replies = []
        for session, message in self._batcher.step():
            seat = self._by_session[session]
            if seat.connection is not None:
                replies.append((seat.connection, message))
            if isinstance(message, messages.Fault):
                self._forget(seat)
        return replies

    def disconnect(self, connection: ConnectionId, now_s: float) -> None:
        """The connection is gone; its sessions wait for their devices to come back."""
        for address in [address for address in self._by_address if address[0] == connection]:
            seat = self._by_address.pop(address)
            seat.connection, seat.away_since = None, now_s
            seat.session.detach()

    def expire(self, now_s: float) -> None:
        """Forget the sessions whose devices have been away for longer than the grace time."""
        for seat in list(self._by_key.values()):
            if seat.connection is None and now_s - seat.away_since > self._settings.grace_s:
                self._forget(seat)

    # Opening

    def _open(self, connection: ConnectionId, message: messages.Open) -> list[messages.CloudMessage]:
        if (connection, message.session) in self._by_address:
            raise RemoteProtocolError(f"session {message.session} is open on this connection already")
        self._check_vocabulary(message.vocabulary)
        if message.resume is not None:
            return self._resume(connection, message, message.resume)
        session = CloudSession(self._terms(message), self._limits, message.session)
        self._make_room()
        try:
            self._batcher.admit(session)
        except PromptRejected as error:
            raise CloudFault(FaultCode.PROMPT, str(error)) from error
        except CacheOverflow as error:
            raise CloudFault(FaultCode.LIMIT, str(error)) from error
        seat = Seat(session, secrets.token_bytes(RESUME_KEY_BYTES), connection)
        self._by_key[seat.key] = self._by_session[session] = seat
        self._by_address[connection, message.session] = seat
        log.info("session opened: %d open", self.num_sessions)
        return [self._opened(seat)]

    def _resume(
        self, connection: ConnectionId, message: messages.Open, resume: messages.Resume
    ) -> list[messages.CloudMessage]:
        seat = self._by_key.get(resume.key)
        try:
            missing = seat.session.reattach(message.session, resume) if seat else None
        except RemoteProtocolError:  # the device went another way: its own text counts, and it sends it again
            self._forget(seat)
            seat = None
        if seat is None:
            return [self._opened(None, message.session)]
        self._unseat(seat)
        self._by_address[connection, message.session] = seat
        seat.connection = connection
        log.info("session resumed at length %d", len(seat.session.token_ids))
        return [self._opened(seat), *([missing] if missing else [])]

    def _opened(self, seat: Seat | None, number: int = 0) -> messages.Opened:
        log_ids = seat.session.token_ids if seat else ()
        return messages.Opened(
            version=messages.PROTOCOL_VERSION,
            session=seat.session.number if seat else number,
            resume_key=seat.key if seat else b"",
            length=len(log_ids),
            digest=packing.log_digest(log_ids),
            vocabulary=self._mark,
            limits=self._limits,
        )

    def _terms(self, message: messages.Open) -> SessionTerms:
        num_edge_ids = message.vocabulary.num_tokens
        if message.sampling.max_tokens > self._limits.max_tokens:
            raise CloudFault(
                FaultCode.LIMIT,
                f"a text of {message.sampling.max_tokens} tokens was asked for and this cloud writes at most "
                f"{self._limits.max_tokens}",
            )
        return SessionTerms(
            prompt=prompts.from_wire(message.segments, num_edge_ids),
            sampling=message.sampling,
            rule=message.rule,
            num_edge_ids=num_edge_ids,
            num_shared_ids=min(num_edge_ids, self._mark.num_tokens),
        )

    def _check_vocabulary(self, theirs: messages.VocabularyMark) -> None:
        if theirs.num_tokens > self._mark.num_tokens:
            return  # the device, whose map is larger, checks
        if self._engine.vocabulary.digest(theirs.num_tokens) != theirs.digest:
            raise CloudFault(
                FaultCode.VOCABULARY,
                f"the draft model {theirs.name} and the target model {self._mark.name} do not share a vocabulary",
            )

    def _make_room(self) -> None:
        """Where all slots are taken, forget the session that has been away longest."""
        if self._batcher.num_sessions < self._engine.limits.num_slots:
            return
        away = [seat for seat in self._by_key.values() if seat.connection is None]
        if not away:
            raise CloudFault(
                FaultCode.BUSY, f"all {self._engine.limits.num_slots} places of this cloud are taken", BUSY_RETRY_S
            )
        self._forget(min(away, key=lambda seat: seat.away_since))

    # Ending

    def _seat_at(self, connection: ConnectionId, number: int) -> Seat:
        seat = self._by_address.get((connection, number))
        if seat is None:
            raise RemoteProtocolError(f"session {number} is not open on this connection")
        return seat

    def _refuse(self, connection: ConnectionId, number: int, fault: CloudFault) -> messages.Fault:
        log.warning("session refused: %s", fault.code)
        self._forget(self._by_address.get((connection, number)))
        return messages.Fault(FaultCode(fault.code), fault.sentence, number, fault.retry_after_s)

    def _forget(self, seat: Seat | None) -> None:
        if seat is None:
            return
        self._batcher.release(seat.session)
        self._by_key.pop(seat.key, None)
        self._by_session.pop(seat.session, None)
        self._unseat(seat)

    def _unseat(self, seat: Seat) -> None:
        """No connection speaks for this session any more."""
        self._by_address = {address: other for address, other in self._by_address.items() if other is not seat}
