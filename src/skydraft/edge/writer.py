"""The three ways to write a text: on the device, in the cloud, or both together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec.structs import replace

from skydraft.core import Evidence, Exact, Mode, Origin, PassTimes, Prompt, ShareLevel, TextPiece
from skydraft.decoding.edge_session import EdgeSession
from skydraft.decoding.lookup import Lookup
from skydraft.edge.border import Border, DisclosureRecord
from skydraft.edge.cloud_client import CloudClient
from skydraft.edge.draft_lease import DraftLease
from skydraft.edge.draft_pool import DraftPool
from skydraft.edge.drafter import Block, Drafter
from skydraft.edge.exact_writer import WITHOUT_DRAFT, ExactWriter
from skydraft.edge.job import Job, Notify, OnText
from skydraft.edge.kept_agreement import KeptAgreement
from skydraft.edge.measuring import LOOK_S, LOOK_TOKENS, look_at_cloud, watch_link
from skydraft.edge.mode_choice import ModeChoice
from skydraft.edge.planner_book import PlannerBook
from skydraft.edge.report import Report, Unasked
from skydraft.edge.shown_text import ShownText
from skydraft.edge.timeline import TimeKeeper
from skydraft.engines.base import Array, Engine
from skydraft.engines.prompt_checks import text_ids
from skydraft.errors import CacheOverflow, CloudFault, ConfigError, EngineError, TransportError, is_for_now
from skydraft.policies.draft_length import draft_length
from skydraft.policies.gate import AlwaysGate, EscalationCap, NeverGate
from skydraft.policies.planner import Planner
from skydraft.policies.undrafted import Undrafted
from skydraft.protocol.messages import FaultCode
from skydraft.sampling.signals import relative_probabilities
from skydraft.tasks.emotions import EmotionWord, by_emotion

DRAFT_FULL = "the draft model has no room for more: shorten the prompt, or give it a larger --max-length"
MAX_PREFIX_BYTES = 2**28
ALONE_LENGTH = 1  # tokens at a time where none are judged: each is shown as it comes


class Writer:
    """Writes texts with one draft engine, which those that are written at the same time share.

    Args:
        engine: the draft model; None where the cloud writes alone.
        draft_times: of it; None: they are learnt from text.
        agreement: of it with the cloud, as it was learnt before; None: it is not known, and not kept.
        max_prefix_bytes: as `DraftPool`.

    Attributes:
        disclosed: what has left the device for all texts that have ended, however they did.
    """

    def __init__(
        self,
        engine: Engine | None,
        draft_times: PassTimes | None = None,
        agreement: KeptAgreement | None = None,
        max_prefix_bytes: int = MAX_PREFIX_BYTES,
    ) -> None:
        self.disclosed = DisclosureRecord(ShareLevel.NONE)
        self._planners = PlannerBook(draft_times, has_draft=engine is not None, agreement=agreement)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="skydraft-draft")
        self._pool = None if engine is None else DraftPool(engine, self._worker, max_prefix_bytes)

    def close(self) -> None:
        """Give the slots of the draft model back; no text is under way."""
        self.forget_texts()
        self._worker.shutdown()
        self._planners.close()

    def forget_texts(self) -> None:
        """Give the slots of the draft model back, also those kept for texts that go on; no text is under way.

        For whoever uses the model in another way between two texts.
        """
        if self._pool is not None:
            self._worker.submit(self._pool.close).result()

    async def write(self, job: Job, on_text: OnText, notify: Notify = lambda _: None) -> Report:
        """Write one text.

        Args:
            on_text: told the text as it comes; called in the event loop.
            notify: told in a sentence when the cloud is lost or goes on alone, and when the text ends early.
        Returns:
            The report of the text, also where it could grow no more, for a slot was full: then it says why.
        Raises:
            TransportError, CloudFault, RemoteProtocolError: the cloud is lost or refuses, and `job.patience` does not
                cover it.
            DisclosureError: the share level keeps something on the device that was about to leave.
            EngineError: the draft model cannot take the prompt, and the cloud may not write alone.
        """
        if job.sampling.grammar is not None:  # compiled already, unless it was forgotten for others: that takes long
            await asyncio.to_thread(job.reader.compile, job.sampling.grammar)
        with self._planners.planner(job.address, job.settings.objective, job.way, job.kind) as planner:
            run = TextRun(job, self._pool, planner, on_text, notify)
            try:
                await run.write()
                await run.weigh_emotion()
            finally:
                run.show_rest()
                try:
                    await run.close()
                finally:
                    self.disclosed.add(run.disclosure)
        return run.report()


class TextRun:
    """One text under way."""

    def __init__(
        self,
        job: Job,
        pool: DraftPool | None,
        planner: Planner,
        on_text: OnText,
        notify: Notify,
    ) -> None:
        self._job = job
        self._planner = planner
        self._pool = pool
        self._on_text = on_text
        self._notify = notify
        self._started_s = time.perf_counter()
        self._keeper = TimeKeeper()
        self._first_token_s: float | None = None
        self._text = ShownText(job.reader.until_stop(job.sampling), job.reader.matcher(job.sampling))
        self._num_tokens = 0  # that the text was seen to have
        self._is_alone = False
        self._is_draft_full = False
        self._ended_early: str | None = None
        self._undrafted: Undrafted | None = None
        self._emotion_word: EmotionWord | None = None
        self._weighing_s = 0.0
        self._border = Border(job.settings.share, job.evidence)
        self._is_sure = job.evidence is Evidence.UNSURE  # nothing leaves yet: the gate has found nothing to ask about
        self._doubtful: Block | None = None  # what it found, and the cloud has not been asked about
        self._gate = job.gate
        self._lengths, self._cap = draft_length(job.settings.block_length), EscalationCap(job.settings.max_escalated)
        self._session = EdgeSession(
            job.vocabulary,
            job.prompts.cloud or Prompt(()),
            job.sampling,
            job.rule,
            number=0 if job.kept is None else job.kept.next_number(),
            is_strict=job.settings.strict,
        )
        self._lease = DraftLease()
        self._drafter = None
        if pool is not None:
            matcher = job.reader.matcher(job.sampling)
            self._drafter = Drafter(pool.engine, self._lease, job.sampling, job.rule, matcher)
        self._choice = ModeChoice(
            mode=job.settings.mode,
            share=job.settings.share,
            objective=job.settings.objective,
            has_cloud=job.address is not None,
            has_draft=pool is not None,
            does_cloud_see_all=job.prompts.does_cloud_see_all,
            planner=planner,
        )
        self._filling: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._client: CloudClient | None = None
        if job.address is not None:
            self._client = CloudClient(
                self._session,
                self._border,
                job.address,
                job.patience,
                planner,
                notify,
                job.settings.pad,
                self._keeper,
                job.kept,
                job.pace,
            )

    async def write(self) -> None:
        """Until the text has ended, or can grow no more."""
        session = self._session
        if self._job.patience.offline == "tunnel" and self._drafter is not None:
            self._begin_to_fill()  # there will be no time for it when the cloud is lost
        while not session.is_complete:
            try:
                if self._is_sure:
                    await self._write_while_sure()
                else:
                    await self._write_on(self._mode())
            except CacheOverflow as overflow:
                self._go_on_without_draft(overflow)
            except CloudFault as fault:
                if fault.code != FaultCode.LIMIT:
                    raise
                self._end_early(fault, str(fault))
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=LOOK_S)  # what it learns serves the next text
        if session.is_cut_short:
            self._ended_early = self._ended_early or (
                f"with this prompt the cloud has room for {session.sampling.max_tokens} tokens of text and "
                f"{self._job.sampling.max_tokens} were asked for: shorten the prompt, or give the cloud a larger "
                "--max-length"
            )
            self._notify(f"the text ended early, after {len(session.token_ids)} tokens: {self._ended_early}")

    async def weigh_emotion(self) -> None:
        """See what the draft model, which has heard the voice, gives the emotion that the text names.

        The text is there already: its times do not count this, and it is not lost where the draft model fails.
        """
        emotions, tokens = self._job.emotion_tokens, self._session.tokens(0)
        place = next((place for place, token in enumerate(tokens) if token.token_id in emotions), None)
        if place is None or self._drafter is None or self._is_draft_full:
            return
        begun_s = time.perf_counter()
        try:
            row = await self._row_after(self._session.token_ids[:place])
            shares = relative_probabilities(row, list(emotions))
        except EngineError:  # for one, the cloud wrote it all, and the draft model has no room for it
            return
        finally:
            self._weighing_s = time.perf_counter() - begun_s
        word = tokens[place]
        is_clouds = word.origin is not Origin.EDGE and self._job.prompts.does_cloud_see_all
        self._emotion_word = EmotionWord(emotions[word.token_id], is_clouds, by_emotion(emotions, shares))

    async def _write_on(self, mode: Mode) -> None:
        """In this mode, until the text has ended or another mode is to go on."""
        try:
            if mode is Mode.EDGE:
                await self._write_alone(lambda: self._is_up_to(Mode.EDGE))
            else:
                await self._write_with_cloud(mode)
        except (TransportError, CloudFault) as error:
            if not (self._job.patience.writes_on and is_for_now(error)):
                raise
            if self._is_draft_full:
                self._end_early(error, f"{error}, and {DRAFT_FULL}")
            else:
                self._is_alone = True
                self._notify(f"{error}; the device goes on alone")
                await self._write_until_back()
        else:
            if self._client is not None and not self._session.is_complete:
                await self._client.leave()  # another mode goes on: towards the cloud it begins with what is written

    def _go_on_without_draft(self, overflow: CacheOverflow) -> None:
        """The draft model has no room for the text, or for more of it: the rest is the cloud's, where it may be.

        Raises:
            CacheOverflow: it may not, and nothing was written yet.
        """
        job = self._job
        sees_all = job.address is not None and job.prompts.does_cloud_see_all and not self._is_sure
        is_rationed = job.settings.max_escalated < 1 or isinstance(self._gate, NeverGate)
        if sees_all and not job.settings.keeps_to_itself and not is_rationed:
            self._is_draft_full = True
            self._notify(f"{WITHOUT_DRAFT}: {overflow}")
        else:
            self._end_early(overflow, DRAFT_FULL)

    def _end_early(self, error: CacheOverflow | TransportError | CloudFault, reason: str) -> None:
        """The text can grow no more, and what there is of it is the result.

        Raises: the error, where nothing was written yet.
        """
        if not self._session.token_ids:
            raise error
        self._session.end_here()
        self._ended_early = reason

    def _is_up_to(self, mode: Mode) -> bool:
        """Whether the text goes on, in this mode."""
        return not self._session.is_complete and self._mode() is mode

    def _mode(self) -> Mode:
        if self._is_draft_full:
            return Mode.CLOUD
        return Mode.EDGE if self._job.prompts.cloud is None else self._choice.at(len(self._session.token_ids))

    async def _write_while_sure(self) -> None:
        """On the device alone, until the gate finds a block that the device is unsure of: there the cloud goes on."""
        self._doubtful = await self._draft_until_unsure(lambda: not self._session.is_complete)
        if self._doubtful is not None:
            self._is_sure = False
            self._border.release_evidence()
            if self._job.rule.promises_cloud_text:
                self._gate = AlwaysGate()

    async def _write_with_cloud(self, mode: Mode) -> None:
        self._planner.look_again.went_back()
        client = self._cloud()
        watching = asyncio.create_task(watch_link(client, self._planner))
        try:
            if mode is Mode.CLOUD:
                while self._is_up_to(Mode.CLOUD):
                    await self._stand_still()
                    await client.listen(self._job.sampling.max_tokens)
                    self._show()
            elif self._job.rule.merges_offers:
                await self._write_exactly()
            else:
                await self._write_by_blocks()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _write_until_back(self) -> None:
        """On the device alone, until the cloud can be reached again."""
        await self._cloud().leave()
        coming_back = asyncio.create_task(self._cloud().come_back())
        try:
            await self._write_alone(lambda: not self._session.is_complete and not coming_back.done())
        finally:
            coming_back.cancel()
            await asyncio.gather(coming_back, return_exceptions=True)
        if not self._session.is_complete:
            coming_back.result()
            self._notify("the cloud is back")

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        try:
            if self._client is not None:
                await self._client.close()
        finally:
            if self._pool is not None and self._drafter is not None:
                await self._pool.release(self._lease, self._drafter, self._session.token_ids)
                if self._filling is not None:
                    await asyncio.gather(self._filling, return_exceptions=True)  # an error was raised where it mattered

    def show_rest(self) -> None:
        """The text has ended, or was broken off: show what was withheld of it."""
        self._tell(self._text.end())

    @property
    def disclosure(self) -> DisclosureRecord:
        """What has left the device so far."""
        return self._border.record

    def report(self) -> Report:
        total_s = time.perf_counter() - self._started_s - self._weighing_s
        return Report(
            pieces=tuple(self._text.pieces),
            finish=self._session.finish,
            stop=self._text.stop,
            num_prompt_tokens=len(text_ids(self._job.prompts.edge)),
            num_prompt_reused=self._session.num_prompt_reused,
            num_drafted=self._session.num_drafted,
            mode=self._job.settings.mode,
            is_alone=self._is_alone,
            seed=None if self._job.sampling.is_greedy else self._job.sampling.seed,
            first_token_s=total_s if self._first_token_s is None else self._first_token_s,
            total_s=total_s,
            rounds=self._session.num_rounds,
            num_positions=self._session.num_positions,
            reconnects=0 if self._client is None else self._client.num_reconnects,
            is_cloud_text=self._session.is_cloud_text,
            num_near_ties=self._session.num_near_ties,
            ended_early=self._ended_early,
            disclosure=self.disclosure,
            unasked=self._unasked,
            undrafted=None if self._is_alone else self._undrafted,
            time_line=self._keeper.time_line,
            emotion_word=self._emotion_word,
        )

    @property
    def _unasked(self) -> Unasked | None:
        if self._job.settings.keeps_to_itself:
            return None
        if self._job.prompts.cloud is None:
            return Unasked.DEAF
        return Unasked.SURE if self._is_sure else None

    async def _write_alone(self, goes_on: Callable[[], bool]) -> None:
        while goes_on():
            await self._stand_still()
            self._session.commit((await self._draft(ALONE_LENGTH)).token_ids)
            self._show()
            is_looking = self._looking is not None and not self._looking.done()
            if self._choice.is_cloud_left_for_speed and not is_looking and self._planner.look_again.wrote(ALONE_LENGTH):
                self._looking = asyncio.create_task(self._look_again())

    async def _stand_still(self) -> None:
        """Until the text may grow."""
        if not self._job.pace.is_held_up:
            return
        if self._client is not None and self._client.is_connected:
            await self._client.stand_still()
        else:
            await self._job.pace.wait()
        self._planner.saw_interruption()

    async def _look_again(self) -> None:
        """See whether the cloud is still as slow as when it was left; the text does not wait for that."""
        job = self._job
        assert job.address is not None, "a cloud that was left has an address"
        assert job.prompts.cloud is not None, "and something may be sent to it"
        sampling = replace(job.sampling, max_tokens=LOOK_TOKENS, end_ids=(), stop=(), grammar=None, top_logprobs=None)
        session = EdgeSession(job.vocabulary, job.prompts.cloud, sampling, Exact())
        patience = job.patience._replace(offline="fail")
        client = CloudClient(session, self._border, job.address, patience, pads=job.settings.pad)
        if await look_at_cloud(client, self._planner):
            self._choice.reconsider()

    async def _write_exactly(self) -> None:
        """The cloud's own text, as fast as both can."""
        lookup, pool, drafter = self._lookup(), self._pool, self._drafter
        if lookup is None:
            pool, drafter = self._require_draft()
        told = self._planner, pool, self._show, self._keeper
        exact_writer = ExactWriter(self._session, self._cloud(), drafter, lookup, *told, self._job.pace)
        try:
            await exact_writer.write(lambda: asyncio.create_task(self._follow()), lambda: self._is_up_to(Mode.HYBRID))
        finally:
            self._is_draft_full = exact_writer.is_full
            self._undrafted = None if self._session.num_rounds else self._planner.why_undrafted

    def _lookup(self) -> Lookup | None:
        """What can be looked up, of what the cloud may know: a private context is in no guess."""
        job = self._job
        if job.sources is None or job.prompts.cloud is None:
            return None
        confidence, prompt_ids = self._planner.habits.match_confidence, job.prompts.cloud.token_ids
        return Lookup(confidence, prompt_ids, job.sampling.end_ids, job.sources)

    async def _follow(self) -> None:
        pool, drafter = await self._with_slot()
        await pool.run(self._lease, drafter.follow(self._session.token_ids))

    async def _write_by_blocks(self) -> None:
        """Block by block, as the gate decides: the cloud is asked where the device is unsure."""
        client = self._cloud()
        block, self._doubtful = self._doubtful, None
        self._begin_to_fill()  # the cloud reads its prompt while the device reads its own
        await client.open()
        while block := block or await self._draft_until_unsure(lambda: self._is_up_to(Mode.HYBRID)):
            num_accepted = await self._ask(client, block)
            self._lengths.observe(len(block.token_ids), num_accepted)
            self._show()
            block = None

    async def _draft_until_unsure(self, goes_on: Callable[[], bool]) -> Block | None:
        """Commit block after block until the gate escalates one, which is returned; None: the text does not go on."""
        while goes_on():
            await self._stand_still()
            block = await self._draft(min(self._lengths.next_length(), self._session.max_block_length))
            if self._cap.allows(len(block.token_ids), self._gate.escalates(block.signals, block.token_ids)):
                return block
            self._session.commit(block.token_ids)
            self._show()
        return None

    async def _ask(self, client: CloudClient, block: Block) -> int:
        """Have a block judged; returns how many of its tokens were accepted."""
        length = len(self._session.token_ids)
        await client.ask(block)
        origins = [token.origin for token in self._session.tokens(length)]
        return min(origins.count(Origin.ACCEPTED), len(block.token_ids))

    async def _draft(self, num_tokens: int) -> Block:
        session = self._session
        pool, drafter = await self._with_slot()
        passes = drafter.draft(session.token_ids, num_tokens, session.num_shared_ids)
        block, seconds = await pool.run(self._lease, passes)
        if block.num_passes:
            self._keeper.drafted(seconds)
            self._planner.saw_draft_step(block.num_read / block.num_passes, seconds / block.num_passes)
        return block

    async def _with_slot(self) -> tuple[DraftPool, Drafter]:
        """Have the draft model read the prompt and the text so far, unless a slot holds them."""
        while True:
            filling = self._begin_to_fill()
            if not filling.done():
                await asyncio.shield(filling)  # it goes on where another mode does
            filling.result()
            if self._lease.is_held:  # else it went to another text meanwhile
                return self._require_draft()

    async def _row_after(self, text: Sequence[int]) -> Array:
        """The draft model's logits [vocab_size] after a beginning of the text, which has ended."""
        pool, drafter = self._require_draft()
        if not self._lease.is_held or self._lease.start > len(text):  # what was read with the prompt cannot be cropped
            await pool.release(self._lease, drafter, self._session.token_ids)
            filled, _ = await pool.open(self._lease, self._job.prompts.edge, text)
            drafter.begin(filled.row, text[: filled.num_held])
        return (await pool.run(self._lease, drafter.row_after(text))).result

    def _begin_to_fill(self) -> asyncio.Task[None]:
        if self._filling is None or (self._filling.done() and not self._lease.is_held):
            self._filling = asyncio.create_task(self._fill(*self._require_draft()))
        return self._filling

    async def _fill(self, pool: DraftPool, drafter: Drafter) -> None:
        text = list(self._session.token_ids)
        filled, _ = await pool.open(self._lease, self._job.prompts.edge, text)
        drafter.begin(filled.row, text[: filled.num_held])

    def _show(self) -> None:
        new_tokens = self._session.tokens(self._num_tokens)
        if new_tokens:
            self._first_token_s = self._first_token_s or time.perf_counter() - self._started_s
            self._num_tokens += len(new_tokens)
            self._keeper.grew(len(new_tokens))
            self._tell(self._text.add(new_tokens))
            if self._text.has_ended:
                self._session.stop()

    def _tell(self, pieces: Sequence[TextPiece]) -> None:
        if pieces:
            self._on_text(pieces)

    def _cloud(self) -> CloudClient:
        if self._client is None:
            raise ConfigError(f"mode {self._job.settings.mode.value} needs the address of a cloud")
        return self._client

    def _require_draft(self) -> tuple[DraftPool, Drafter]:
        if self._pool is None or self._drafter is None:
            raise ConfigError("the device has no draft model and cannot write by itself: give it one with --draft")
        return self._pool, self._drafter
