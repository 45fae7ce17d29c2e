"""Device and cloud write a text together under `exact`: the device listens while it drafts.

Three things go on at once, and each sets `wake` when something has happened:

    listening     client.receive: the text grows (rules 2 and 6 of docs/protocol.md); the tree of guesses follows it
    a draft step  the draft model, in the worker's thread, reads nodes of the tree; at most one at a time
    writing       waits for `wake`, then: takes in a finished draft step, has offers made, begins the next draft step,
                  and sends what is due

    state                  event                                      next
    -----                  -----                                      ----
    the cloud writes       the planner finds that drafts may pay      the prompt is read
    the prompt is read     the draft model has read it                drafting
                           it has no room for it                      is_full
    drafting               the draft model has no room for more       is_full
                           its slot went to another text              the prompt is read
    any                    the connection is lost: guesses that were  as before, over a new connection, as far as
                           sent are to be sent again (rule 5)         the client's patience goes
                           the text is complete, or another mode is   the end
                           to go on

In state is_full, and until the prompt is read, the cloud writes on credit where the way to draft gives it some. A
device that need not draft does not read its prompt: that would hold up a cloud on the same processor. What is looked up
costs no draft step: it is offered in every state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from skydraft.decoding.drafting import Drafting
from skydraft.decoding.edge_session import EdgeSession
from skydraft.decoding.lookup import Lookup
from skydraft.edge.cloud_client import CloudClient
from skydraft.edge.draft_pool import DraftPool, Timed
from skydraft.edge.drafter import Drafter
from skydraft.edge.text_pace import TextPace
from skydraft.edge.timeline import TimeKeeper
from skydraft.edge.tree_reader import DraftStep
from skydraft.errors import CacheOverflow, CloudFault, TransportError
from skydraft.policies.planner import Planner
from skydraft.sampling.guesses import Guesses

ANSWERS_PER_TURN = 8  # of those that have come already, before other texts have their turn

WITHOUT_DRAFT = "the draft model has no room for this text, so the cloud writes on alone"


class ExactWriter:
    """Writes one text.

    Args:
        drafter: None: there is no draft model, and guesses are looked up.
        lookup: None: nothing is.
        pool: where the drafter has its slot; None: there is no drafter.
        show: called when the text has grown.
        keeper: told of draft steps.
        pace: whether the text may grow at the moment.

    Attributes:
        is_full: the draft model has no room for the text, or for more of it: the cloud writes on alone.
    """

    def __init__(
        self,
        session: EdgeSession,
        client: CloudClient,
        drafter: Drafter | None,
        lookup: Lookup | None,
        planner: Planner,
        pool: DraftPool | None,
        show: Callable[[], None],
        keeper: TimeKeeper,
        pace: TextPace,
    ) -> None:
        self._session = session
        self._client = client
        self._drafter = drafter
        self._planner = planner
        self._pool = pool
        self._show = show
        self._keeper = keeper
        self._pace = pace
        self._held_up_s = 0.0  # since when
        self._drafting = Drafting(session, planner, time.monotonic(), lookup)
        self._wake = asyncio.Event()
        pace.follow(self._wake.set)
        self._reading_prompt: asyncio.Task[None] | None = None
        # The draft step under way, and what it will give: the guesses after each node, and the seconds that it took.
        self._step: tuple[DraftStep, asyncio.Future[Timed[list[Guesses]]]] | None = None
        self.is_full = False

    async def write(self, read_prompt: Callable[[], asyncio.Task[None]], goes_on: Callable[[], bool]) -> None:
        """Until the text is complete.

        Args:
            read_prompt: has the drafter's slot filled; called when there is something to draft, and again when the slot
                went to another text.
            goes_on: whether to go on; asked whenever the text has grown.
        Raises:
            TransportError, CloudFault: the cloud is lost, and patience does not cover it.
            RemoteProtocolError, VocabularyMismatch: as EdgeSession.receive.
            EngineError: the draft model cannot take the prompt, though it has room for it.
        """
        try:
            while goes_on():
                try:
                    await self._converse(read_prompt, goes_on)
                except (TransportError, CloudFault) as error:
                    self._drafting.saw_loss()
                    await self._client.recover(error)
        finally:
            self._planner.stop_drafting()
            # The slot may not be used behind the back of what comes next; an error was raised where it mattered.
            if self._reading_prompt is not None:
                self._reading_prompt.cancel()
            under_way = [self._reading_prompt, self._step and self._step[1]]
            await asyncio.gather(*(work for work in under_way if work is not None), return_exceptions=True)

    async def _converse(self, read_prompt: Callable[[], asyncio.Task[None]], goes_on: Callable[[], bool]) -> None:
        """Over one connection."""
        self._follow_pace()
        self._drafting.give_credit()
        self._read_for_drafts(read_prompt)
        await self._client.send_due()
        self._drafting.saw_connection()
        listening = asyncio.create_task(self._listen())
        listening.add_done_callback(lambda _: self._wake.set())
        try:
            while goes_on():
                self._wake.clear()
                self._follow_pace()
                self._finish_step()
                self._read_for_drafts(read_prompt)
                can_draft = self._drafter is not None and self._has_read_prompt() and self._drafter.lease.is_held
                self._drafting.give_credit()
                self._drafting.offer()
                if can_draft:
                    self._start_step()  # before the offers leave: the draft model is not to wait for that
                await self._client.send_due()
                await self._wake.wait()
                if listening.done():
                    listening.result()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self) -> None:
        num_answers = 0
        while not self._session.is_complete:
            await self._client.receive()
            self._drafting.saw_answer()
            self._show()
            self._wake.set()
            num_answers += 1
            if num_answers % ANSWERS_PER_TURN == 0:
                await asyncio.sleep(0)

    def _follow_pace(self) -> None:
        drafting, now_s = self._drafting, time.monotonic()
        if drafting.is_held_up == self._pace.is_held_up:
            return
        drafting.is_held_up = self._pace.is_held_up
        if drafting.is_held_up:
            self._held_up_s = now_s
        else:
            self._planner.saw_interruption(now_s - self._held_up_s)

    def _read_for_drafts(self, read_prompt: Callable[[], asyncio.Task[None]]) -> None:
        """Begin to read the prompt, once there is something to draft, and again where the slot was lost."""
        if self._drafter is None or self._drafting.is_held_up:
            return
        if self._has_read_prompt() and not self._drafter.lease.is_held:
            self._reading_prompt = None
        if self._reading_prompt is None and self._drafting.way.width:
            self._reading_prompt = read_prompt()
            self._reading_prompt.add_done_callback(lambda _: self._wake.set())

    def _has_read_prompt(self) -> bool:
        """Whether the draft model has read the prompt, and is to draft."""
        if self.is_full or self._reading_prompt is None or not self._reading_prompt.done():
            return False
        try:
            self._reading_prompt.result()
        except CacheOverflow as overflow:
            self._give_up(overflow)
        return not self.is_full

    def _give_up(self, overflow: CacheOverflow) -> None:
        """The draft model has no room: the cloud writes the rest."""
        self.is_full = True
        self._drafting.give_up()
        self._client.notify(f"{WITHOUT_DRAFT}: {overflow}")

    def _start_step(self) -> None:
        pool, drafter = self._pool, self._drafter
        if pool is None or drafter is None or self._step is not None:
            return
        nodes = self._drafting.next_step()
        if not nodes:
            return
        step = drafter.plan(self._drafting.tree, nodes)
        num_guesses, num_ids = self._drafting.way.num_guesses, self._session.num_shared_ids
        result = pool.run(drafter.lease, drafter.guess(step, num_guesses, num_ids))
        result.add_done_callback(lambda _: self._wake.set())
        self._step = step, result

    def _finish_step(self) -> None:
        if self._step is None or not self._step[1].done():
            return
        (step, result), self._step = self._step, None
        try:
            guesses, seconds = result.result()
        except CacheOverflow as overflow:
            self._give_up(overflow)
            return
        if step.token_ids:
            self._keeper.drafted(seconds)
        self._drafting.saw_draft_step(step.nodes, guesses, len(step.token_ids), seconds)
