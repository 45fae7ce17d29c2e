"""All sessions of a cloud: who they belong to, how they are resumed, when they are forgotten.

Used by the scheduler's thread alone: messages in, messages out.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from skydraft.cloud.access.account import Account
from skydraft.cloud.access.keys import LOCAL_USER, Holder
from skydraft.cloud.metrics import Metrics
from skydraft.config import CloudSettings
from skydraft.core import Prompt, TokenSegment, parse_rule
from skydraft.decoding.cloud_session import CloudSession, SessionTerms
from skydraft.decoding.edge_session import mark_of
from skydraft.engines.base import Engine
from skydraft.errors import CacheOverflow, CloudFault, PromptRejected, RemoteProtocolError
from skydraft.protocol import messages, packing, segments
from skydraft.protocol.messages import FaultCode
from skydraft.scheduling.batcher import Answer, Batcher, BatchLimits, Pass

log = logging.getLogger("skydraft.cloud")

ConnectionId: TypeAlias = int
Address: TypeAlias = tuple[ConnectionId, int]
Reply = tuple[ConnectionId, messages.CloudMessage]

RESUME_KEY_BYTES = 16
BUSY_RETRY_S = 1.0
REASSURE_S = 10.0  # devices wait for two minutes
TOKEN_BYTES = 40  # of a token id in memory: an int and what points to it


@dataclass(eq=False)
class Seat:
    """A session and who holds it now.

    num_bytes: that its prompt and its text may take.
    address: None while the device is away, since `away_since`.
    heard_s: when the device last said something.
    asked_s: since when something waits for its forward pass.
    reassured_s: when the device was last told that it is worked for.
    """

    session: CloudSession
    key: bytes
    account: Account
    num_bytes: int
    address: Address | None
    heard_s: float
    away_since: float = 0.0
    asked_s: float = 0.0
    reassured_s: float = 0.0


class Hub:
    """Sessions of many connections over one engine.

    Args:
        clock: seconds, monotonic.
        reassure_s: a device that waits for so long is told that it is worked for, and again after as long.
    """

    def __init__(
        self,
        engine: Engine,
        settings: CloudSettings,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        reassure_s: float = REASSURE_S,
    ) -> None:
        self._reassure_s = reassure_s
        self._batcher = Batcher(engine, BatchLimits(settings.max_positions, settings.prefill_tokens))
        self._engine = engine
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._mark = mark_of(engine.vocabulary)
        self._limits = messages.Limits(engine.limits.max_length, settings.max_draft_tokens, settings.max_in_flight)
        self._num_bytes = 0
        self._accounts: dict[str, Account] = {}  # as many as there are keys
        self._account_of: dict[ConnectionId, Account] = {}
        self._by_key: dict[bytes, Seat] = {}
        self._by_address: dict[Address, Seat] = {}
        self._by_session: dict[CloudSession, Seat] = {}

    @property
    def num_sessions(self) -> int:
        return len(self._by_key)

    @property
    def num_attended(self) -> int:
        """Sessions whose devices are there."""
        return len(self._by_address)

    @property
    def is_busy(self) -> bool:
        """Whether `step` has something to do."""
        return self._batcher.is_busy

    def connect(self, connection: ConnectionId, holder: Holder) -> None:
        """A connection comes with a key. One that was never announced is this machine's own user's."""
        now_s = self._clock()
        account = self._accounts.setdefault(holder.name, Account(holder, now_s))
        account.change_grant(holder.grant, now_s)
        self._account_of[connection] = account

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
                    return []
                case messages.Offer() | messages.Generate():
                    return self._hear(self._seat_at((connection, message.session)), message)
        except CloudFault as error:
            fault = error
        except RemoteProtocolError as error:
            fault = CloudFault(FaultCode.PROTOCOL, str(error))
        except Exception:  # a bug of ours must not take the other sessions with it
            log.exception("a %s could not be handled", type(message).__name__)
            fault = CloudFault(FaultCode.INTERNAL, "the cloud failed to handle a message; its log says why")
        self._forget(self._by_address.get((connection, message.session)))
        return [(connection, self._fault(fault, message.session))]

    def step(self) -> list[Reply]:
        """Run what waits as one forward pass. What it says may be nothing, though it read a part of a prompt."""
        began_s = self._clock()
        done = self._batcher.step()
        ended_s = self._clock()
        self._count(done, ended_s - began_s)
        spenders = {self._by_session[answer.session].account for answer in done.answers if answer.num_emitted}
        replies = [reply for answer in done.answers for reply in self._note(answer, began_s, ended_s)]
        return replies + self._stop_spenders(spenders)

    def give_up(self) -> list[Reply]:
        """What to tell all connections where nothing can go on."""
        fault = CloudFault(FaultCode.INTERNAL, "the cloud failed; its log says why")
        return [(connection, self._fault(fault, None)) for connection in self._account_of]

    def disconnect(self, connection: ConnectionId) -> None:
        """The connection is gone; its sessions wait for their devices to come back."""
        self._account_of.pop(connection, None)
        for address in [address for address in self._by_address if address[0] == connection]:
            self._send_away(self._by_address[address])

    def expire(self) -> list[Reply]:
        """Forget sessions whose devices have been away for the grace time, and send away those that say nothing."""
        now_s, settings = self._clock(), self._settings
        for seat in [seat for seat in self._by_key.values() if seat.address is None]:
            if now_s - seat.away_since > settings.grace_s:
                self._forget(seat)
        silent = [
            seat
            for seat in self._by_address.values()
            if now_s - seat.heard_s > settings.idle_s and not seat.session.has_work
        ]
        sentence = f"nothing was asked of this text for {settings.idle_s:g} s: open it again"
        return [reply for seat in silent for reply in self._pause(seat, CloudFault(FaultCode.BUSY, sentence, 0.0))]

    def reassure(self) -> list[Reply]:
        """Tell devices that have waited for a while that they are worked for: a long prompt takes many passes."""
        now_s, replies = self._clock(), list[Reply]()
        for (connection, number), seat in self._by_address.items():
            if now_s - max(seat.asked_s, seat.reassured_s) >= self._reassure_s and seat.session.has_work:
                seat.reassured_s = now_s
                replies.append((connection, messages.Working(number)))
        return replies

    # Opening

    def _open(self, connection: ConnectionId, message: messages.Open) -> list[messages.CloudMessage]:
        address = (connection, message.session)
        if address in self._by_address:
            raise RemoteProtocolError(f"session {message.session} is open on this connection already")
        self._check_vocabulary(message.vocabulary)
        account = self._account(connection)
        if spent := self._spent(account):
            raise spent
        if message.resume is not None:
            return self._resume(address, account, message.resume)
        terms = self._terms(message)
        num_prompt = self._measure(terms.prompt)
        limits = self._limits_beside(num_prompt)
        num_bytes = _num_bytes(terms, limits.max_tokens)
        self._make_room(account, num_bytes)
        session = CloudSession(terms, limits, message.session)
        seat = Seat(session, secrets.token_bytes(RESUME_KEY_BYTES), account, num_bytes, address, self._clock())
        self._batcher.admit(session, account, num_prompt)
        self._by_key[seat.key] = self._by_session[session] = self._by_address[address] = seat
        self._num_bytes += num_bytes
        account.seats.add(seat)
        self._metrics.opened()
        log.info("session opened: %d open", self.num_sessions)
        return [self._opened(seat)]

    def _resume(self, address: Address, account: Account, resume: messages.Resume) -> list[messages.CloudMessage]:
        seat = self._by_key.get(resume.key)
        if seat is None or seat.account is not account:  # of another's session nobody learns that it exists
            return [self._opened(None, address[1])]
        try:
            missing = seat.session.reattach(address[1], resume)
        except RemoteProtocolError:  # the device went another way: its own text counts, and it sends it again
            self._forget(seat)
            return [self._opened(None, address[1])]
        self._unseat(seat)
        self._by_address[address] = seat
        seat.address, seat.heard_s = address, self._clock()
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
            limits=seat.session.limits if seat else self._limits,
            model=self._engine.vocabulary.name,
        )

    def _terms(self, message: messages.Open) -> SessionTerms:
        num_edge_ids = message.vocabulary.num_tokens
        return SessionTerms(
            prompt=segments.from_wire(message.segments, num_edge_ids),
            sampling=message.sampling,
            rule=parse_rule(message.rule),
            num_edge_ids=num_edge_ids,
            num_shared_ids=min(num_edge_ids, self._mark.num_tokens),
        )

    def _check_vocabulary(self, theirs: messages.VocabularyMark) -> None:
        if theirs.num_tokens > self._mark.num_tokens:
            return  # the device, whose map is larger, checks
        if self._engine.vocabulary.digest(theirs.num_tokens) != theirs.digest:
            raise CloudFault(
                FaultCode.VOCABULARY,
                f"the draft model and the target model {self._engine.vocabulary.name} do not share a vocabulary",
            )

    def _measure(self, prompt: Prompt) -> int:
        try:
            return self._batcher.measure(prompt)
        except PromptRejected as error:
            raise CloudFault(FaultCode.PROMPT, str(error)) from error
        except CacheOverflow as error:
            raise CloudFault(FaultCode.LIMIT, str(error)) from error

    def _limits_beside(self, num_prompt: int) -> messages.Limits:
        """What a session may write: its text ends where the slot is full.

        Raises:
            CloudFault: the prompt leaves no room.
        """
        room = self._limits.max_tokens - num_prompt
        if room < 1:
            raise CloudFault(
                FaultCode.LIMIT,
                f"the prompt has {num_prompt} tokens and a slot of this cloud has room for {self._limits.max_tokens}, "
                "the text included: shorten the prompt",
            )
        return msgspec.structs.replace(self._limits, max_tokens=room)

    def _make_room(self, account: Account, num_bytes: int) -> None:
        """Where a limit is reached, forget the sessions that have been away longest: their devices can begin again."""
        settings, most = self._settings, account.grant.max_sessions
        while len(account.seats) >= most:
            self._forget_away(account.seats, f"the key {account.name} has {most} sessions open and may have no more")
        while self.num_sessions >= settings.max_sessions:
            self._forget_away(self._by_key.values(), f"all {settings.max_sessions} places of this cloud are taken")
        while self._num_bytes + num_bytes > settings.max_state_bytes:
            self._forget_away(
                self._by_key.values(), f"the {settings.max_state_bytes} bytes of this cloud for texts are taken"
            )

    def _forget_away(self, seats: Iterable[Seat], sentence: str) -> None:
        away = [seat for seat in seats if seat.address is None]
        if not away:
            raise CloudFault(FaultCode.BUSY, sentence, BUSY_RETRY_S)
        self._forget(min(away, key=lambda seat: seat.away_since))

    # Work

    def _hear(self, seat: Seat, message: messages.Offer | messages.Generate) -> list[Reply]:
        now_s, session = self._clock(), seat.session
        seat.heard_s = now_s
        fault = self._spent(seat.account)
        if fault is None and isinstance(message, messages.Offer):
            fault = self._crowded(seat.account)
        if fault is not None:
            return self._pause(seat, fault)
        if not session.has_work:
            seat.asked_s = now_s
        session.receive(message)
        self._batcher.wake(session)
        return []

    def _spent(self, account: Account) -> CloudFault | None:
        """What to say to a key that has used its tokens up."""
        wait_s = account.wait_s(self._clock())
        if not wait_s:
            return None
        sentence = f"the key {account.name} has used its {account.grant.tokens_per_minute} tokens a minute"
        return CloudFault(FaultCode.BUSY, sentence, wait_s)

    def _crowded(self, account: Account) -> CloudFault | None:
        """What to say to a key of which as many offers wait as may."""
        most = account.grant.max_in_flight
        if len(account.seats) * self._settings.max_in_flight < most:  # they cannot be so many: no need to count
            return None
        if sum(seat.session.num_waiting for seat in account.seats) < most:
            return None
        return CloudFault(FaultCode.BUSY, f"{most} offers of this key are waiting to be judged already", BUSY_RETRY_S)

    def _count(self, done: Pass, forward_s: float) -> None:
        if done.num_positions:
            num_emitted = sum(answer.num_emitted for answer in done.answers)
            self._metrics.passed(done.num_sessions, done.num_positions, num_emitted, forward_s)
        self._metrics.moved(done.num_evicted, done.num_restored)

    def _note(self, answer: Answer, began_s: float, ended_s: float) -> list[Reply]:
        """Count what came out of a pass, and address it."""
        seat = self._by_session[answer.session]
        reply = [] if seat.address is None else [(seat.address[0], answer.message)]
        if isinstance(answer.message, messages.Fault):
            self._metrics.refused(answer.message.code)
            self._forget(seat)
            return reply
        self._metrics.waited(began_s - seat.asked_s)
        seat.asked_s = ended_s
        seat.account.spend(answer.num_emitted, ended_s)
        if answer.num_offered:
            self._metrics.judged(answer.num_offered, answer.num_accepted)
        return reply

    def _stop_spenders(self, accounts: Iterable[Account]) -> list[Reply]:
        """Pause what waits of keys that have used their tokens up."""
        return [
            reply
            for account in accounts
            if (fault := self._spent(account))
            for seat in [seat for seat in account.seats if seat.session.has_work]
            for reply in self._pause(seat, fault)
        ]

    def _pause(self, seat: Seat, fault: CloudFault) -> list[Reply]:
        """End the session for its device, which may take it up again after some time."""
        if seat.address is None:
            return []
        connection, number = seat.address
        self._send_away(seat)
        return [(connection, self._fault(fault, number))]

    # Ending

    def _account(self, connection: ConnectionId) -> Account:
        if connection not in self._account_of:
            self.connect(connection, LOCAL_USER)
        return self._account_of[connection]

    def _seat_at(self, address: Address) -> Seat:
        seat = self._by_address.get(address)
        if seat is None:
            raise RemoteProtocolError(f"session {address[1]} is not open on this connection")
        return seat

    def _fault(self, fault: CloudFault, number: int | None) -> messages.Fault:
        log.warning("session refused: %s", fault.code)
        self._metrics.refused(fault.code)
        return messages.Fault(FaultCode(fault.code), fault.sentence, number, fault.retry_after_s)

    def _send_away(self, seat: Seat) -> None:
        """No connection speaks for this session any more; the device will say again what it wants."""
        self._unseat(seat)
        seat.away_since = self._clock()
        seat.session.detach()

    def _forget(self, seat: Seat | None) -> None:
        if seat is None:
            return
        self._batcher.release(seat.session)
        self._unseat(seat)
        del self._by_key[seat.key]
        del self._by_session[seat.session]
        seat.account.seats.discard(seat)
        self._num_bytes -= seat.num_bytes
        self._metrics.closed()

    def _unseat(self, seat: Seat) -> None:
        if seat.address is not None:
            del self._by_address[seat.address]
            seat.address = None


def _num_bytes(terms: SessionTerms, max_tokens: int) -> int:
    """What a session's prompt and text of at most so many tokens may take, in memory."""
    return TOKEN_BYTES * min(terms.sampling.max_tokens, max_tokens) + sum(
        TOKEN_BYTES * len(segment.token_ids) if isinstance(segment, TokenSegment) else len(segment.data)
        for segment in terms.prompt.segments
    )
