"""A session over a connection that may be lost: opens it, asks, and takes it up again."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from skydraft.config import Offline
from skydraft.decoding.edge_session import EdgeSession, Phase
from skydraft.edge.answer_time import AnswerLimits, AnswerTime
from skydraft.edge.border import Border
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.drafter import Block
from skydraft.edge.mismatch import explain_mismatch
from skydraft.edge.padded import Channel, PaddedConnection
from skydraft.errors import CloudFault, TransportError, VocabularyMismatch
from skydraft.protocol import messages
from skydraft.transport.websocket import connect

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
ROUTE_ID_BYTES = 16


class Patience(NamedTuple):
    """What to do about a lost cloud.

    offline: "wait" takes the session up again; otherwise the loss is the caller's to handle.
    wait_s: how long "wait" tries.
    answer: when it is lost, though its connection stands.
    """

    offline: Offline
    wait_s: float
    answer: AnswerLimits = AnswerLimits()


class Conversation:
    """Speaks with one cloud about one text, which grows in `session`.

    Args:
        notify: told in a sentence when the cloud is lost, or goes on alone.
        pads: messages are padded and leave at a fixed pace (`edge/padded`).
    """

    def __init__(
        self,
        session: EdgeSession,
        border: Border,
        address: CloudAddress,
        patience: Patience,
        notify: Callable[[str], None] = lambda _: None,
        pads: bool = False,
    ) -> None:
        self.session = session
        self.num_reconnects = 0
        self._border = border
        self._address = address
        self._patience = patience
        self.notify = notify
        self._pads = pads
        self._route_id = secrets.token_hex(ROUTE_ID_BYTES)  # of this text alone: it says nothing about who writes
        self._connection: Channel | None = None
        self._lost_at_s: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self._is_credited = False
        self._has_spoken = False
        self._answer_time = AnswerTime(session, address.url, patience.answer)

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    async def open(self) -> None:
        """Connect and have the session opened.

        Raises:
            TransportError: the cloud cannot be reached.
            CloudFault, RemoteProtocolError, VocabularyMismatch: as EdgeSession.receive.
        """
        await self._persist(self._open)

    async def ask(self, block: Block) -> None:
        """Offer a block and wait until the session has grown by the verdict, or by what a lost verdict had decided.

        Raises: as `open`.
        """
        await self._persist(lambda: self._ask(block))

    async def listen(self, up_to: int) -> None:
        """Give the cloud credit up to this position and wait until the session has grown.

        Raises: as `open`.
        """
        await self._persist(lambda: self._listen(up_to))

    async def begin(self, credit: int | None) -> None:
        """Connect and have the session opened or taken up again; what follows a fresh `open` need not wait.

        Args:
            credit: up to which position the cloud may write by itself; None: not at all.
        Raises: as `open`, and nothing is tried again.
        """
        await self._connect()
        if self.session.phase is Phase.APART:
            await self.send(self.session.open())
        if not self.session.can_follow:
            await self._open()
        if self.session.cloud_length < len(self.session.token_ids):
            await self.send(self.session.offer(()))  # forced: what a cloud without a memory lacks
        if credit is not None:
            await self.send(self.session.credit(credit))

    async def send(self, message: messages.EdgeMessage) -> None:
        """Send, once. Raises: TransportError."""
        assert self._connection is not None
        await self._connection.send(self._border.let_out(message))
        self._has_spoken = True
        self._answer_time.asked()

    async def receive(self) -> None:
        """Wait for one message and take it into the session. Raises: as `open`, and nothing is tried again."""
        assert self._connection is not None
        message = self._border.let_in(await self._answer_time.wait(self._connection.receive))
        length = len(self.session.token_ids)
        try:
            self._answer_time.take_in(message)
        except VocabularyMismatch as mismatch:
            raise await explain_mismatch(self._address, self.session.vocabulary) from mismatch
        except CloudFault as fault:
            if fault.code == messages.FaultCode.VOCABULARY:
                raise await explain_mismatch(self._address, self.session.vocabulary) from fault
            raise
        if len(self.session.token_ids) > length:  # a cloud that only opens sessions is not back
            self._lost_at_s, self._pause_s = None, FIRST_PAUSE_S

    async def round_trip_s(self) -> float:
        """Time a ping. Raises: TransportError."""
        if self._connection is None:
            raise TransportError(f"there is no connection to {self._address.url}")
        return await self._connection.round_trip_s()

    async def come_back(self) -> None:
        """Try to have the session taken up again, for as long as it takes.

        Raises:
            CloudFault: the cloud refuses for good.
            RemoteProtocolError, VocabularyMismatch: as EdgeSession.receive.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            wait_s = pause_s
            try:
                await self._open()
                self.num_reconnects += 1
                return
            except TransportError:
                await self._drop()
            except CloudFault as fault:
                if fault.retry_after_s is None:
                    raise
                wait_s = max(pause_s, fault.retry_after_s)
                await self._drop()
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def recover(self, error: TransportError | CloudFault) -> None:
        """After a loss: wait as long as is good before the next attempt.

        Raises:
            TransportError, CloudFault: `error`, where patience has ended or would not help.
        """
        least_s = 0.0  # to be waited, as the cloud says
        if isinstance(error, CloudFault):
            if error.retry_after_s is None:
                raise error
            least_s = error.retry_after_s
        await self._drop()
        if self._patience.offline != "wait":
            raise error
        now_s = time.monotonic()
        if self._lost_at_s is None:
            self._lost_at_s = now_s
            self.num_reconnects += 1
            self.notify(f"{error}; trying again for {self._patience.wait_s:g} s")
        left_s = self._lost_at_s + self._patience.wait_s - now_s
        if left_s < least_s:
            raise error
        await asyncio.sleep(min(least_s or self._pause_s, left_s))
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    async def leave(self) -> None:
        """The device goes on alone: what the cloud may still say of this text does not count any more."""
        await self.close()
        self.session.abandon()

    async def close(self) -> None:
        """Say that the session is over, where somebody listens, and close the connection."""
        if self._connection is None:
            return
        try:
            if self._has_spoken:
                await self.send(self.session.close())
        except TransportError:
            pass  # the cloud forgets the session by itself
        finally:
            await self._drop()

    async def _open(self) -> None:
        await self._connect()
        while self.session.phase is not Phase.OPEN:
            if self.session.phase is Phase.APART:
                await self.send(self.session.open())
            await self.receive()

    async def _ask(self, block: Block) -> None:
        await self._open()
        await self.send(self.session.offer(block.token_ids, distributions=block.distributions))
        while self.session.num_in_flight:
            await self.receive()

    async def _listen(self, up_to: int) -> None:
        if not self._is_credited:
            await self.begin(up_to)
            self._is_credited = True
        length = len(self.session.token_ids)
        while len(self.session.token_ids) == length:
            await self.receive()

    async def _connect(self) -> None:
        if self._connection is None:
            connection = await connect(self._address.url, token=self._address.key, route_id=self._route_id)
            self._connection = PaddedConnection(connection, self._border.record) if self._pads else connection

    async def _persist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until it works, as far as patience goes."""
        while True:
            try:
                return await attempt()
            except (TransportError, CloudFault) as error:
                await self.recover(error)

    async def _drop(self) -> None:
        self.session.disconnect()
        self._is_credited = self._has_spoken = False
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
