"""All sessions of a cloud: whose they are, how devices resume them, when they are forgotten.

Only the scheduler's thread uses it, but for `prepare`: messages in, messages out. A session is in one of three states
(rules of docs/protocol.md):

    attached    a device speaks for it at an address: a connection and the device's number for the session
    detached    its device is away; the text and the resume key are kept, offers and credit are not
    forgotten   nothing of it is left

    from        to          when
    -           attached    `Open` with a prompt
    attached    detached    the connection is gone; the device asked for nothing for `idle_s`; the key has used up its
                            tokens or has too many offers waiting (a `Fault` `busy` says so)
    either      attached    `Open` with its resume key and the digest of its text (rule 5)
    either      forgotten   `Open` with its resume key and another text (rule 5)
    attached    forgotten   `Close`; a fault of the session
    detached    forgotten   after `grace_s`; before that where a limit is reached and it has been away longest
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from skydraft.cloud.access.account import Account
from skydraft.cloud.access.keys import LOCAL_USER, Holder
from skydraft.cloud.metrics import Metrics
from skydraft.cloud.opening import new_session, require_shared_vocabulary
from skydraft.config import CloudSettings
from skydraft.core import PassTimes, TokenSegment
from skydraft.decoding.cloud_session import CloudSession
from skydraft.engines.base import Engine
from skydraft.errors import CloudFault, ConfigError, RemoteProtocolError
from skydraft.protocol import messages, packing
from skydraft.protocol.limits import MAX_GAP_CHANGE
from skydraft.protocol.messages import FaultCode
from skydraft.scheduling.batcher import Batcher, ForwardPass
from skydraft.scheduling.prefix_cache import make_prefix_cache
from skydraft.text.token_reader import TokenReader

log = logging.getLogger("skydraft.cloud")

ConnectionId: TypeAlias = int
Address: TypeAlias = tuple[ConnectionId, int]
Scope: TypeAlias = tuple[str, str]  # of a prefix cache: name and hash of a key; who takes over a name shares nothing
Reply = tuple[ConnectionId, messages.CloudMessage]

RESUME_KEY_BYTES = 16
BUSY_RETRY_S = 1.0
REASSURE_S = 10.0  # devices wait for two minutes
TOKEN_BYTES = 40  # of a token id in memory: an int and what points to it


@dataclass(eq=False)
class SessionRecord:
    """A session and what the registry knows about it.

    key: resumes it.
    num_bytes: what its prompt and its text may take in memory.
    address: where its device is; None while it is detached, since `away_since`.
    heard_s: when the device last said something.
    asked_s: since when something waits for its forward pass.
    reassured_s: when the device was last told that the cloud works on it.
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


class SessionRegistry:
    """Sessions of many connections over one engine.

    Args:
        clock: seconds, monotonic.
        pass_times: of the engine; None: not known.
        reader: of its model's ids; None: nobody here can read them.
        reassure_s: a device that has waited for so long is told that the cloud works on it, and again after as long.
    """

    def __init__(
        self,
        engine: Engine,
        settings: CloudSettings,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        reassure_s: float = REASSURE_S,
        pass_times: PassTimes | None = None,
        reader: TokenReader | None = None,
    ) -> None:
        self._reader = reader
        self._pass_times = pass_times
        self._reassure_s = reassure_s
        self._prefixes = make_prefix_cache(engine, settings.max_prefix_bytes, clock)
        self._batcher = Batcher(
            engine, settings.max_positions, settings.prefill_tokens, settings.max_swap_bytes, self._prefixes
        )
        self._engine = engine
        self._settings = settings
        self._metrics = metrics or Metrics()
        if (prefixes := self._prefixes) is not None:
            self._metrics.watch_prefixes(lambda: prefixes.num_bytes)
        self._clock = clock
        self._mark = messages.VocabularyMark.of(engine.vocabulary)
        self._limits = messages.Limits(engine.limits.max_length, settings.max_draft_tokens, settings.max_in_flight)
        promise = engine.row_promise
        self._gap_change = None if promise.gap_change is None else min(promise.gap_change, MAX_GAP_CHANGE)
        self._counted_gap = None if promise.is_invariant else self._gap_change
        self._num_bytes = 0
        self._accounts: dict[str, Account] = {}  # as many as there are keys
        self._account_of: dict[ConnectionId, Account] = {}
        self._scope_of: dict[ConnectionId, Scope] = {}
        self._want_prompt_read: set[ConnectionId] = set()
        self._is_draining = False
        self._by_key: dict[bytes, SessionRecord] = {}
        self._by_address: dict[Address, SessionRecord] = {}
        self._by_session: dict[CloudSession, SessionRecord] = {}
        self._by_account: dict[Account, set[SessionRecord]] = {}

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

    def begin_drain(self) -> None:
        """From now on refuse new texts; those that devices have open may end."""
        self._is_draining = True

    def connect(self, connection: ConnectionId, holder: Holder, wants_prompt_read: bool = False) -> None:
        """A connection comes with a key. One that was never announced is this machine's own user's.

        Args:
            wants_prompt_read: its device is told `messages.PromptRead`.
        """
        now_s = self._clock()
        account = self._accounts.setdefault(holder.name, Account(holder, now_s))
        account.change_grant(holder.grant, now_s)
        self._account_of[connection] = account
        self._scope_of[connection] = holder.name, holder.sha256
        if wants_prompt_read:
            self._want_prompt_read.add(connection)
        self._by_account.setdefault(account, set())

    def receive(self, connection: ConnectionId, message: messages.EdgeMessage) -> list[Reply]:
        """Take in a message.

        Returns:
            What to send at once, and over which connection. Faults end their session.
        """
        try:
            match message:
                case messages.Open():
                    return [(connection, reply) for reply in self._open(connection, message)]
                case messages.Close():
                    self._forget(self._by_address.get((connection, message.session)))
                    return []
                case messages.Offer() | messages.Generate():
                    return self._hear((connection, message.session), message)
        except CloudFault as error:
            fault = error
        except RemoteProtocolError as error:
            fault = CloudFault(FaultCode.PROTOCOL, str(error))
        except Exception:  # a bug of ours must not take the other sessions with it
            log.exception("a %s could not be handled", type(message).__name__)
            fault = CloudFault(FaultCode.INTERNAL, "the cloud failed to handle a message; its log says why")
        self._forget(self._by_address.get((connection, message.session)))
        return [(connection, self._fault(fault, message.session))]

    def prepare(self, message: messages.Open) -> None:
        """Compile a text's grammar, so that `receive` need not and no other text waits for it. In any thread."""
        with suppress(ConfigError):  # `receive` will say it
            if self._reader is not None and message.sampling.grammar is not None:
                self._reader.compile(message.sampling.grammar)

    def step(self) -> list[Reply]:
        """Run what waits as one forward pass.

        Returns:
            What it gives devices; nothing where it read a part of a prompt.
        """
        began_s = self._clock()
        done = self._batcher.step()
        ended_s = self._clock()
        if done.num_positions:
            num_emitted = sum(outcome.num_emitted for outcome in done.outcomes.values())
            self._metrics.passed(done.num_sessions, done.num_positions, num_emitted, ended_s - began_s)
        if done.num_prompt_read or done.reused:
            self._metrics.read_prompts(done.num_prompt_read, sum(done.reused.values()))
        if done.num_evicted or done.num_restored:
            self._metrics.moved(done.num_evicted, done.num_restored)
        replies = self._prompts_read(done)
        writers: set[Account] = set()
        for session, outcome in done.outcomes.items():
            record = self._by_session[session]
            if record.address is not None:
                replies.append((record.address[0], outcome.message))
            if isinstance(outcome.message, messages.Fault):
                self._metrics.refused(outcome.message.code)
                self._forget(record)
                continue
            self._metrics.waited(began_s - record.asked_s)
            record.asked_s = ended_s
            if outcome.num_offered:
                self._metrics.judged(outcome.num_offered, outcome.num_accepted)
            if outcome.num_emitted:
                record.account.spend(outcome.num_emitted - outcome.num_unbilled, ended_s)
                writers.add(record.account)
        for account in writers:
            if wait_s := account.wait_s(ended_s):
                waiting = [record for record in self._by_account[account] if record.session.has_work]
                replies += [reply for record in waiting for reply in self._send_away(record, _spent(account, wait_s))]
        return replies

    def _prompts_read(self, done: ForwardPass) -> list[Reply]:
        """What to tell of prompts whose beginnings were read before."""
        of_wanted = [(self._by_session[session], num_reused) for session, num_reused in done.reused.items()]
        return [
            (record.address[0], messages.PromptRead(num_reused, record.session.number))
            for record, num_reused in of_wanted
            if record.address is not None and record.address[0] in self._want_prompt_read
        ]

    def fail_all(self) -> list[Reply]:
        """What to tell all connections when nothing can go on."""
        fault = CloudFault(FaultCode.INTERNAL, "the cloud failed; its log says why")
        return [(connection, self._fault(fault, None)) for connection in self._account_of]

    def disconnect(self, connection: ConnectionId) -> None:
        """The connection is gone; its sessions wait for their devices to come back."""
        self._account_of.pop(connection, None)
        self._scope_of.pop(connection, None)
        self._want_prompt_read.discard(connection)
        for address in [address for address in self._by_address if address[0] == connection]:
            self._disconnect_device(self._by_address[address])

    def expire(self) -> list[Reply]:
        """Forget sessions whose devices have been away for the grace time, and send away those that say nothing."""
        now_s, settings = self._clock(), self._settings
        if self._prefixes is not None:
            self._prefixes.expire()
        for record in [record for record in self._by_key.values() if record.address is None]:
            if now_s - record.away_since > settings.grace_s:
                self._forget(record)
        silent = [
            record
            for record in self._by_address.values()
            if now_s - record.heard_s > settings.idle_s and not record.session.has_work
        ]
        sentence = f"nothing was asked of this text for {settings.idle_s:g} s: open it again"
        fault = CloudFault(FaultCode.BUSY, sentence, 0.0)
        return [reply for record in silent for reply in self._send_away(record, fault)]

    def reassure(self) -> list[Reply]:
        """Tell devices that have waited for a while that the cloud works on it: a long prompt takes many passes."""
        now_s, replies = self._clock(), list[Reply]()
        for (connection, number), record in self._by_address.items():
            if now_s - max(record.asked_s, record.reassured_s) >= self._reassure_s and record.session.has_work:
                record.reassured_s = now_s
                replies.append((connection, messages.Working(number)))
        return replies

    # Opening

    def _open(self, connection: ConnectionId, message: messages.Open) -> list[messages.CloudMessage]:
        if self._is_draining:
            sentence = "this cloud is shutting down and takes no more texts"
            raise CloudFault(FaultCode.BUSY, sentence, BUSY_RETRY_S)
        address = (connection, message.session)
        if address in self._by_address:
            raise RemoteProtocolError(f"session {message.session} is open on this connection already")
        require_shared_vocabulary(message.vocabulary, self._engine.vocabulary)
        account = self._account(connection)
        if wait_s := account.wait_s(self._clock()):
            raise _spent(account, wait_s)
        if message.resume is not None:
            return self._resume(address, account, message.version, message.resume)
        session, num_prompt = new_session(
            message, self._mark, self._limits, self._batcher.measure, self._counted_gap, self._reader
        )
        num_bytes = _num_bytes(session)
        self._make_room(account, num_bytes)
        resume_key = secrets.token_bytes(RESUME_KEY_BYTES)
        record = SessionRecord(session, resume_key, account, num_bytes, address, self._clock())
        self._batcher.admit(session, account, num_prompt, self._scope_of[connection])
        self._by_key[record.key] = self._by_session[session] = self._by_address[address] = record
        self._num_bytes += num_bytes
        self._by_account[account].add(record)
        self._metrics.opened()
        log.info("session opened: %d open", self.num_sessions)
        return [self._opened(message.version, record)]

    def _resume(
        self, address: Address, account: Account, version: int, resume: messages.Resume
    ) -> list[messages.CloudMessage]:
        record = self._by_key.get(resume.key)
        if record is None or record.account is not account:  # another key's session looks like one that does not exist
            return [self._opened(version, None, address[1])]
        try:
            missing = record.session.reattach(address[1], resume)
        except RemoteProtocolError:  # the device went another way: its own text counts, and it sends it again
            self._forget(record)
            return [self._opened(version, None, address[1])]
        self._detach(record)
        self._by_address[address] = record
        record.address, record.heard_s = address, self._clock()
        log.info("session resumed at length %d", len(record.session.token_ids))
        return [self._opened(version, record), *([missing] if missing else [])]

    def _opened(self, version: int, record: SessionRecord | None, number: int = 0) -> messages.Opened:
        log_ids = record.session.token_ids if record else ()
        return messages.Opened(
            version=version,
            session=record.session.number if record else number,
            resume_key=record.key if record else b"",
            length=len(log_ids),
            digest=packing.log_digest(log_ids),
            vocabulary=self._mark,
            limits=record.session.limits if record else self._limits,
            model=self._engine.vocabulary.name,
            is_invariant=self._engine.row_promise.is_invariant,
            gap_change=self._gap_change,
            pass_times=self._pass_times,
        )

    def _make_room(self, account: Account, num_bytes: int) -> None:
        """Where a limit is reached, forget the sessions that have been away longest: their devices can begin again."""
        settings, most, own = self._settings, account.grant.max_sessions, self._by_account[account]
        while len(own) >= most:
            self._forget_away(own, f"the key {account.name} has {most} sessions open and may have no more")
        sentence = f"this cloud has {settings.max_sessions} sessions open and can have no more"
        while self.num_sessions >= settings.max_sessions:
            self._forget_away(self._by_key.values(), sentence)
        sentence = f"this cloud uses all {settings.max_state_bytes} bytes that it has for texts"
        while self._num_bytes + num_bytes > settings.max_state_bytes:
            self._forget_away(self._by_key.values(), sentence)

    def _forget_away(self, records: Iterable[SessionRecord], sentence: str) -> None:
        away = [record for record in records if record.address is None]
        if not away:
            raise CloudFault(FaultCode.BUSY, sentence, BUSY_RETRY_S)
        self._forget(min(away, key=lambda record: record.away_since))

    # Work

    def _hear(self, address: Address, message: messages.Offer | messages.Generate) -> list[Reply]:
        record = self._by_address.get(address)
        if record is None:
            raise RemoteProtocolError(f"session {address[1]} is not open on this connection")
        now_s, session, account = self._clock(), record.session, record.account
        record.heard_s = now_s
        if wait_s := account.wait_s(now_s):
            return self._send_away(record, _spent(account, wait_s))
        if isinstance(message, messages.Offer):
            records, most = self._by_account[account], account.grant.max_in_flight
            may_be_crowded = len(records) * self._settings.max_in_flight >= most  # otherwise there is no need to count
            if may_be_crowded and sum(other.session.num_waiting for other in records) >= most:
                sentence = f"{most} offers of this key are waiting to be judged already"
                return self._send_away(record, CloudFault(FaultCode.BUSY, sentence, BUSY_RETRY_S))
        if not session.has_work:
            record.asked_s = now_s
        session.receive(message)
        self._batcher.wake(session)
        return []

    def _send_away(self, record: SessionRecord, fault: CloudFault) -> list[Reply]:
        """Detach the session and tell its device, which may resume it after some time."""
        if record.address is None:
            return []
        connection, number = record.address
        self._disconnect_device(record)
        return [(connection, self._fault(fault, number))]

    # Ending

    def _account(self, connection: ConnectionId) -> Account:
        if connection not in self._account_of:
            self.connect(connection, LOCAL_USER)
        return self._account_of[connection]

    def _fault(self, fault: CloudFault, number: int | None) -> messages.Fault:
        log.warning("session refused: %s", fault.code)
        self._metrics.refused(fault.code)
        return messages.Fault(FaultCode(fault.code), fault.sentence, number, fault.retry_after_s)

    def _disconnect_device(self, record: SessionRecord) -> None:
        """Detach the session from its device, which will say again what it wants when it is back."""
        self._detach(record)
        record.away_since = self._clock()
        record.session.detach()

    def _forget(self, record: SessionRecord | None) -> None:
        if record is None:
            return
        self._batcher.release(record.session)
        self._detach(record)
        del self._by_key[record.key]
        del self._by_session[record.session]
        self._by_account[record.account].remove(record)
        self._num_bytes -= record.num_bytes
        self._metrics.closed()

    def _detach(self, record: SessionRecord) -> None:
        if record.address is not None:
            del self._by_address[record.address]
            record.address = None


def _spent(account: Account, wait_s: float) -> CloudFault:
    sentence = f"the key {account.name} has used its {account.grant.tokens_per_minute} tokens a minute"
    return CloudFault(FaultCode.BUSY, sentence, wait_s)


def _num_bytes(session: CloudSession) -> int:
    """What a session's prompt and text may take, in memory."""
    terms, top_logprobs = session.terms, session.terms.sampling.top_logprobs
    logprob_bytes = 0 if top_logprobs is None else TOKEN_BYTES + packing.num_logprob_bytes(top_logprobs)
    return (TOKEN_BYTES + logprob_bytes) * min(terms.sampling.max_tokens, session.limits.max_tokens) + sum(
        TOKEN_BYTES * len(segment.token_ids) if isinstance(segment, TokenSegment) else len(segment.data)
        for segment in terms.prompt.segments
    )
