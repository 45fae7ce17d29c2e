"""Carries the bytes of one text's session to a cloud and back, over connections that may be lost.

The session says what is to be sent and what an answer means (`decoding/edge_session`). The client adds a connection,
the border, time and patience, and tells the planner what it sees. It has a connection or none:

    state         event                                      what happens                              next
    -----         -----                                      ------------                              ----
    apart         something is to be sent                    connect; send what the session lists      connected
    connected     something is to be sent                    send what the session lists               connected
                  an answer arrives                          the session takes it in                   connected
                  connection lost, cloud silent for too      drop the connection, tell the session;    apart
                  long, `Fault` that says when to try again  wait, or raise: as patience says
                  `Fault` that does not, a broken rule       raise                                     connected
                  leave() or close()                         say Close, drop the connection            apart

Rule 5 of docs/protocol.md makes that enough: a session whose connection was lost lists `Open` again, and what the cloud
lacks behind it. Patience ends `wait_s` after the loss; it begins anew when the text has grown, and not when a session
was opened: a cloud that only opens sessions is not back.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

from skydraft.decoding.edge_session import EdgeSession, Phase
from skydraft.edge.border import Border
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.drafter import Block
from skydraft.edge.kept_connection import KeptConnection
from skydraft.edge.mismatch import explain_mismatch
from skydraft.edge.padded import Channel, PaddedConnection
from skydraft.edge.patience import AnswerTime, Patience
from skydraft.edge.text_pace import TextPace
from skydraft.edge.timeline import TimeKeeper
from skydraft.errors import CloudFault, TransportError, VocabularyMismatch
from skydraft.policies.planner import Planner
from skydraft.protocol import messages
from skydraft.transport.websocket import Connection, connect

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
ROUTE_ID_BYTES = 16


class CloudClient:
    """Speaks with one cloud about one text, which grows in `session`.

    `open`, `ask` and `listen` take the session up again as far as patience goes. `send_due` and `receive` are for a
    caller that does both at once; it calls `recover` when one of them raises.

    Args:
        planner: told of connections, questions and answers; None: nothing is to be learnt from this text.
        notify: called with a sentence when the cloud is lost.
        pads: messages are padded and leave at a fixed pace (`edge/padded`).
        keeper: told when offers leave and answers arrive.
        kept: of a conversation: its connection is used, and kept for what comes next. One that pads is not.
        pace: whether the text may grow; None: always.
    """

    def __init__(
        self,
        session: EdgeSession,
        border: Border,
        address: CloudAddress,
        patience: Patience,
        planner: Planner | None = None,
        notify: Callable[[str], None] = lambda _: None,
        pads: bool = False,
        keeper: TimeKeeper | None = None,
        kept: KeptConnection | None = None,
        pace: TextPace | None = None,
    ) -> None:
        self.session = session
        self._pace = pace or TextPace()
        self.num_reconnects = 0
        self.notify = notify
        self._border = border
        self._address = address
        self._patience = patience
        self._planner = planner or Planner()
        self._pads = pads
        self._keeper = keeper or TimeKeeper()
        self._route_id = secrets.token_hex(ROUTE_ID_BYTES)  # of this text alone: it says nothing about the device
        self._kept = None if pads else kept
        self._connection: Channel | None = None
        self._is_unproven = False  # the connection was kept, and nothing has come over it since: it may have ended
        self._is_in_order = True  # what came over it so far was taken in
        self._lost_at_s: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self._has_spoken = False
        self._is_cloud_idle = True  # it has no offer to judge
        self._answer_time = AnswerTime(session, address.url, patience)

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

        async def attempt() -> None:
            await self._open()
            self.session.offer(block.token_ids, distributions=block.distributions)
            await self._exchange(lambda: not self.session.num_in_flight)

        await self._persist(attempt)

    async def listen(self, up_to: int) -> None:
        """Give the cloud credit up to this position and wait until the session has grown.

        Raises: as `open`.
        """
        self.session.give_credit(up_to)
        length = len(self.session.token_ids)
        await self._persist(lambda: self._exchange(lambda: len(self.session.token_ids) > length))

    async def stand_still(self) -> None:
        """Take the credit back until the text may grow; what is under way is taken in meanwhile.

        Raises: as `open`; but a connection that is lost meanwhile is not missed.
        """
        self.session.give_credit(0)
        going_on = asyncio.create_task(self._pace.wait())
        try:
            while self._pace.is_held_up:
                if self._connection is None:
                    await going_on
                    return
                try:
                    await self.send_due()
                    await self._receive_until(going_on)
                except (TransportError, CloudFault) as error:
                    await self.recover(error)
        finally:
            going_on.cancel()

    async def _receive_until(self, end: asyncio.Task[None]) -> None:
        receiving = asyncio.create_task(self.receive())
        try:
            await asyncio.wait({receiving, end}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                receiving.result()
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def connect(self) -> Channel:
        """Connect, once; there is no connection yet. Raises: TransportError."""
        connection = self._kept.take(self._address) if self._kept is not None else None
        self._is_unproven = connection is not None
        if connection is None:
            connection = await connect(self._address.url, token=self._address.key, route_id=self._route_id)
        self._connection = PaddedConnection(connection, self._border.record) if self._pads else connection
        self._is_cloud_idle = True
        self._planner.saw_interruption()
        return self._connection

    async def send_due(self) -> None:
        """Send what the session lists, over a new connection where there is none. Raises: TransportError, at once."""
        connection = self._connection or await self.connect()
        for message in self.session.to_send():
            await connection.send(self._border.let_out(message))
            self._has_spoken = True
            self._answer_time.asked()
            self._keeper.sent(self.session.in_flight)
            if self._is_cloud_idle and isinstance(message, messages.Offer):
                self._is_cloud_idle = False
                self._planner.saw_question(time.monotonic())

    async def receive(self) -> None:
        """Wait for one message and take it into the session. Raises: as `open`, at once."""
        assert self._connection is not None
        data = await self._answer_time.wait(self._connection.receive)
        self._is_unproven = self._is_in_order = False
        message = self._border.let_in(data)
        session = self.session
        if message.session not in (None, session.number):  # of an earlier text: it was under way when that ended
            self._is_in_order = True
            return
        length, cloud_length, num_positions = len(session.token_ids), session.cloud_length, session.num_positions
        try:
            self._answer_time.take_in(message)
        except VocabularyMismatch as mismatch:
            raise await explain_mismatch(self._address, session.vocabulary) from mismatch
        except CloudFault as fault:
            if fault.code == messages.FaultCode.VOCABULARY:
                raise await explain_mismatch(self._address, session.vocabulary) from fault
            raise
        self._keeper.answered(session, length, self._planner.estimates.round_trip_s)
        if isinstance(message, messages.Opened) and message.pass_times is not None:
            self._planner.saw_pass_times(message.pass_times)
        self._is_in_order = True
        self._is_cloud_idle = not session.num_in_flight
        num_new = len(session.token_ids) - length
        if not num_new:
            return
        self._lost_at_s, self._pause_s = None, FIRST_PAUSE_S
        num_forced = session.cloud_length - cloud_length - num_new  # committed here, and computed there as others are
        num_computed = session.num_positions - num_positions + num_forced
        self._planner.saw_answer(time.monotonic(), num_new, num_computed, session.has_credit)

    async def round_trip_s(self) -> float:
        """Time a ping. Raises: TransportError."""
        if self._connection is None:
            raise TransportError(f"there is no connection to {self._address.url}")
        return await self._connection.round_trip_s()

    async def recover(self, error: TransportError | CloudFault) -> None:
        """After a loss: wait as long as is good before the next attempt; where the text is held up, until it may grow.

        Raises:
            TransportError, CloudFault: `error`, where patience has ended or would not help.
        """
        if self._is_unproven:
            self._is_unproven = False
            await self._drop(is_lost=True)
            return
        if self._pace.is_held_up and isinstance(error, TransportError):  # for one, a cloud heard nothing for too long
            await self._drop(is_lost=True)
            await self._pace.wait()
            return
        least_s = await self._lose(error)
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
        await self._pause(min(least_s or self._pause_s, left_s))

    async def come_back(self) -> None:
        """Try to have the session opened, for as long as it takes.

        Raises:
            CloudFault: the cloud refuses for good.
            RemoteProtocolError, VocabularyMismatch: as EdgeSession.receive.
        """
        self._pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._open()
                self.num_reconnects += 1
                return
            except (TransportError, CloudFault) as error:
                await self._pause(max(self._pause_s, await self._lose(error)))

    async def leave(self) -> None:
        """The device goes on alone: what the cloud may still say of this text does not count any more."""
        await self.close()
        self.session.abandon()

    async def close(self) -> None:
        """Say that the session is over, where there is a connection, and close it or keep it."""
        if self._connection is None:
            return
        try:
            if self._has_spoken:
                await self._connection.send(self._border.let_out(self.session.close()))
            if self._kept is not None and self._is_in_order and isinstance(self._connection, Connection):
                self._kept.give(self._address, self._connection)
                self._connection = None
        except TransportError:
            pass  # the cloud forgets the session by itself
        finally:
            await self._drop()

    async def _open(self) -> None:
        await self._exchange(lambda: self.session.phase is Phase.OPEN)

    async def _exchange(self, is_done: Callable[[], bool]) -> None:
        """Send what is due and take in answers until this is so. Raises: as `open`, at once."""
        while not is_done():
            await self.send_due()
            await self.receive()

    async def _persist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until it works, as far as patience goes."""
        while True:
            try:
                return await attempt()
            except (TransportError, CloudFault) as error:
                await self.recover(error)

    async def _lose(self, error: TransportError | CloudFault) -> float:
        """Drop the connection; returns how many seconds the cloud wants to be left alone. Raises: `error`, for good."""
        least_s = 0.0
        if isinstance(error, CloudFault):
            if error.retry_after_s is None:
                raise error
            least_s = error.retry_after_s
        await self._drop(is_lost=isinstance(error, TransportError))
        return least_s

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt, and before the one after it longer."""
        await asyncio.sleep(seconds)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    async def _drop(self, is_lost: bool = False) -> None:
        """Let go of the connection; nobody at the end of a lost one would answer a goodbye."""
        self.session.disconnect()
        self._keeper.lost()
        self._has_spoken = False
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if is_lost:
            connection.abort()
        else:
            await connection.close()
