"""The draft engine, shared by the texts that a device writes at the same time.

What texts want of the engine they hand in as `Passes`. The pool reads what all of them want in one forward pass, again
and again, in the worker's thread; between two passes, in the event loop, it decides who takes part. Slots are lent:

    state      event                                                                              next
    -----      -----                                                                              ----
    without    `open`: a slot is free, or another text can do without its own                     filling
    filling    prompt and text so far are read, a chunk a pass                                    held
               the engine refuses the prompt, or the text ends                                    without
    held       `run`: passes, with those of others                                                held
               another text waits for a slot, this one wants nothing at the moment, and has had   without
               its turn (as many tokens as its slot cost to fill) or was idle for IDLE_S
               `release`: the text has ended                                                      without

A slot that a text gave back keeps what it has read for as long as no text needs it, so that a prompt that goes on from
there (the next turn of a conversation) is read from there. What was read of prompts is kept outside of slots too, and
so is the rest of such a slot when another text needs it (`edge/read_before`): a prompt that begins like one of them is
read from where they part. Prompts that come at once wait for the one that reads what they share.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from skydraft.core import Prompt, TensorSegment, TokenSegment
from skydraft.edge.draft_lease import DraftLease, Passes
from skydraft.edge.drafter import Drafter, num_common
from skydraft.edge.read_before import ReadBefore, SpareSlot
from skydraft.engines.base import Array, ChunkedEngine, Engine, Extension, PromptChunk, Slot
from skydraft.engines.prompt_checks import require_finite, text_ids
from skydraft.scheduling.prefix_cache import BlockKeys

_Result = TypeVar("_Result")

CHUNK = 128  # tokens of one prompt in one pass
CHUNKS_PER_PASS = 2  # prompts read beside each other: drafts of others wait for these
LEAST_TURN = 64  # tokens that a text may read before another, which waits, takes its slot
IDLE_S = 0.25  # or so long without a pass
MERGE_TURNS = 3  # of the event loop, in which texts that got their answers ask again, so that they share the next pass


class Timed(NamedTuple, Generic[_Result]):
    """What passes gave, and how many seconds they took, whatever else was in them."""

    result: _Result
    seconds: float


class Filled(NamedTuple):
    """A slot that has read a prompt and the text so far.

    row: float [vocab_size], after what it has read. num_held: tokens of the text that it has read.
    """

    row: Array
    num_held: int


@dataclass(eq=False)
class _Job:
    """Passes of one text.

    item: what is to be read next; None before the first pass and after the last.
    is_filling: they read a prompt. num_prompt, keys: of its tokens, in the prefix cache.
    """

    lease: DraftLease
    passes: Passes[Any]
    answer: asyncio.Future[Timed[Any]]
    is_filling: bool = False
    num_prompt: int = 0
    keys: BlockKeys = ()
    item: Extension | PromptChunk | None = None
    result: Any = None
    error: Exception | None = None
    is_done: bool = False
    seconds: float = 0.0

    def go_on(self, logits: Array) -> None:
        try:
            self.item = self.passes.send(logits)
        except StopIteration as end:
            self.item, self.is_done, self.result = None, True, end.value
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        self.passes.close()
        self.item, self.is_done, self.error = None, True, error

    def stop(self) -> None:
        """Nobody waits for it any more."""
        self.passes.close()
        self.item, self.is_done = None, True

    def settle(self) -> None:
        if self.answer.done():
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(Timed(self.result, self.seconds))


@dataclass(eq=False)
class _Opening:
    """A text that waits for a slot.

    token_ids: of prompt and text so far; None: of a prompt that is not only tokens. keys: of them, in `read_before`.
    """

    lease: DraftLease
    prompt: Prompt
    num_text: int
    token_ids: Sequence[int] | None
    keys: BlockKeys
    answer: asyncio.Future[Timed[Any]]


@dataclass
class _Content:
    """A lent slot and what it was filled with: see `SpareSlot`.

    slot: None: it has yet to be opened.
    is_known: what it holds is what its drafter says: no pass of it was given up.
    """

    used_s: float
    slot: Slot | None = None
    prompt_ids: Sequence[int] | None = None
    num_base: int = 0
    row: Array = None
    is_known: bool = True


class DraftPool:
    """Lends the slots of a draft engine and runs the passes of all texts that have one together.

    For an event loop at a time; where nothing is under way, another one may use it.

    Args:
        worker: one thread, in which the engine runs.
        max_prefix_bytes: memory for what was read of prompts, beside the slots; 0: nothing is kept, in slots neither.

    Attributes:
        num_passes: forward passes so far. num_taken_back: slots that texts lost to others.
    """

    def __init__(self, engine: Engine, worker: ThreadPoolExecutor, max_prefix_bytes: int = 0) -> None:
        self.engine = engine
        self.num_passes = self.num_taken_back = 0
        self._before = ReadBefore(engine, max_prefix_bytes)
        self._chunked = engine if isinstance(engine, ChunkedEngine) else None
        self._worker = worker
        self._jobs: list[_Job] = []
        self._openings: list[_Opening] = []
        self._lent: dict[DraftLease, _Content] = {}
        self._to_close: list[Slot] = []
        self._to_keep: list[SpareSlot] = []  # before they are closed
        self._driving: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def open(self, lease: DraftLease, prompt: Prompt, text: Sequence[int]) -> asyncio.Future[Timed[Filled]]:
        """Get a slot that has read the prompt, and of the text so far as much as can be read with it.

        Raises, where it is awaited:
            CacheOverflow, PromptRejected: the engine does not take the prompt.
        """
        answer: asyncio.Future[Timed[Filled]] = asyncio.get_running_loop().create_future()
        held = text[: max(0, len(text) - 1)]  # the last one is read where its logits are wanted
        has_tensor = any(isinstance(segment, TensorSegment) for segment in prompt.segments)
        token_ids = None if has_tensor else [*text_ids(prompt), *held]
        num_text, keys = len(held) if token_ids else 0, self._before.keys(token_ids)
        self._openings.append(_Opening(lease, prompt, num_text, token_ids, keys, answer))
        self._go()
        return answer

    def run(self, lease: DraftLease, passes: Passes[_Result]) -> asyncio.Future[Timed[_Result]]:
        """Run passes of a text that has a slot, which it keeps until they are done."""
        assert lease.is_held, "open the slot first"
        answer: asyncio.Future[Timed[_Result]] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(lease, passes, answer))
        self._go()
        return answer

    async def release(self, lease: DraftLease, drafter: Drafter, text: Sequence[int]) -> None:
        """The text has ended: what it wanted of the engine is not run, and others may have its slot.

        Returns at the end of the pass under way, if the text is part of it.
        """
        for waiting in self._waiting():
            if waiting.lease is lease:
                waiting.answer.cancel()
        if lease not in self._lent:
            return
        answer: asyncio.Future[Timed[None]] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(lease, self._give_back(lease, drafter, text), answer))
        self._go()
        await answer

    def close(self) -> None:
        """Give all slots back; nothing is under way. In the worker's thread."""
        lent = [content.slot for content in self._lent.values() if content.slot is not None]
        spares = (*self._before.spares, *self._to_keep)
        for slot in (*self._to_close, *lent, *(spare.slot for spare in spares)):
            self.engine.close(slot)
        self._to_close, self._to_keep, self._lent = [], [], {}
        self._before.clear()

    # In the event loop

    def _go(self) -> None:
        if self._driving is None or self._driving.done():
            self._wake = asyncio.Event()
            self._driving = asyncio.create_task(self._drive())
        self._wake.set()

    async def _drive(self) -> None:
        """While anything is to be done."""
        loop = asyncio.get_running_loop()
        try:
            while self._jobs or self._openings or self._has_to_close:
                self._wake.clear()
                self._openings = [opening for opening in self._openings if not opening.answer.cancelled()]
                self._lend()
                jobs = self._next_pass()
                if not jobs and not self._has_to_close:
                    await self._wait_for_a_turn()
                    continue
                await loop.run_in_executor(self._worker, self._pass, jobs)
                self._settle(jobs)
                if len(self._lent) > 1:
                    for _ in range(MERGE_TURNS):
                        await asyncio.sleep(0)
        except BaseException:  # the event loop ends, or the worker has
            for waiting in self._waiting():
                waiting.answer.cancel()
            self._jobs, self._openings = [], []
            raise

    @property
    def _has_to_close(self) -> bool:
        return bool(self._to_close or self._to_keep)

    def _waiting(self) -> list[_Job | _Opening]:
        return [*self._openings, *self._jobs]

    async def _wait_for_a_turn(self) -> None:
        """Texts wait for slots whose texts have not had their turn, and want nothing either."""
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_S):
                await self._wake.wait()

    def _next_pass(self) -> list[_Job]:
        """One job of each text, in the order in which they came; of prompts a few."""
        jobs: dict[DraftLease, _Job] = {}
        num_filling = 0
        for job in self._jobs:
            if job.lease in jobs or (job.is_filling and num_filling == CHUNKS_PER_PASS):
                continue
            reading = (other.keys for other in jobs.values())
            if job.item is None and self._before.is_read_by_one_of(reading, job.keys, job.num_prompt):
                continue
            jobs[job.lease] = job
            num_filling += job.is_filling
        return list(jobs.values())

    def _lend(self) -> None:
        """Give slots to texts that wait for one."""
        while self._openings:
            opening = self._openings[0]
            spare = self._before.take_spare(opening.token_ids, opening.keys)
            if spare is None and len(self._lent) + len(self._before.spares) >= self.engine.limits.num_slots:
                if self._before.spares:
                    self._to_keep.append(self._before.spares.pop(0))
                elif (given_up := self._take_back()) is not None:
                    self._to_close.append(given_up)
                else:
                    return
            self._openings.pop(0)
            content = self._lent[opening.lease] = _Content(time.monotonic(), None if spare is None else spare.slot)
            passes, num_prompt = self._fill(opening, content, spare), len(opening.token_ids or ())
            keys = opening.keys if spare is None else ()  # a spare slot waits for nobody
            self._jobs.append(_Job(opening.lease, passes, opening.answer, True, num_prompt, keys))

    def _take_back(self) -> Slot | None:
        """The slot of the text that has been idle longest, if it can do without; None: there is no such text."""
        now_s, busy = time.monotonic(), {job.lease for job in self._jobs}
        idle = [
            (content.used_s, lease)
            for lease, content in self._lent.items()
            if lease not in busy
            and (lease.num_read >= max(LEAST_TURN, lease.num_filled) or now_s - content.used_s >= IDLE_S)
        ]
        if not idle:
            return None
        _, lease = min(idle, key=lambda each: each[0])
        slot, lease.slot = lease.slot, None
        del self._lent[lease]
        self.num_taken_back += 1
        return slot

    def _settle(self, jobs: Sequence[_Job]) -> None:
        self._jobs = [job for job in self._jobs if not job.is_done]
        still_asking = {job.lease for job in self._jobs}
        for job in jobs:
            self._lent[job.lease].used_s = time.monotonic()
            if not job.is_done:
                continue
            if not job.lease.is_held and job.lease not in still_asking:
                slot = self._lent.pop(job.lease).slot
                self._to_close += [] if slot is None else [slot]
            job.settle()

    # In the worker's thread

    def _pass(self, jobs: Sequence[_Job]) -> None:
        """One forward pass, for those that read something in it."""
        begin_s = time.perf_counter()
        while self._to_keep:
            spare = self._to_keep.pop()
            self._before.keep_text(spare)
            self._to_close.append(spare.slot)
        while self._to_close:
            self.engine.close(self._to_close.pop())
        for job in jobs:
            if job.answer.cancelled():
                self._lent[job.lease].is_known = False
                job.stop()
            elif job.item is None:
                job.go_on(None)
        self._read([job for job in jobs if job.item is not None])
        seconds = time.perf_counter() - begin_s
        for job in jobs:
            job.seconds += seconds

    def _read(self, jobs: Sequence[_Job]) -> None:
        """Together; where that fails, one by one, so that a bad one fails alone."""
        if not jobs:
            return
        items = [job.item for job in jobs if job.item is not None]
        try:
            self.num_passes += 1
            if self._chunked is not None:
                all_logits = self._chunked.extend(items)
            else:
                all_logits = self.engine.extend([item for item in items if isinstance(item, Extension)])
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._read([job])
            else:
                self._lent[jobs[0].lease].is_known = False
                jobs[0].fail(error)
            return
        for job, item, logits in zip(jobs, items, all_logits, strict=True):
            job.lease.num_read += item.num_tokens if isinstance(item, PromptChunk) else len(item.token_ids)
            job.go_on(logits)

    def _fill(self, opening: _Opening, content: _Content, spare: SpareSlot | None) -> Passes[Filled]:
        """Read the prompt and the text so far into a slot: a spare one that holds a part of them, or an empty one."""
        lease, token_ids = opening.lease, opening.token_ids
        lease.num_read = lease.start = 0
        if spare is not None and token_ids is not None:
            content.num_base, content.row = spare.num_base, spare.row
            row = yield from self._read_on(spare, token_ids)
        else:
            whole = opening.prompt if token_ids is None else Prompt((TokenSegment(tuple(token_ids)),))
            row = content.row = yield from self._read_whole(lease, content, whole, opening.keys)
            content.num_base = len(token_ids or ())
        if token_ids is not None:
            content.prompt_ids = token_ids[: len(token_ids) - opening.num_text]
            lease.start = content.num_base - len(content.prompt_ids)
        lease.slot, lease.num_filled, lease.num_read = content.slot, lease.num_read, 0
        return Filled(row, opening.num_text)

    def _read_whole(self, lease: DraftLease, content: _Content, prompt: Prompt, keys: BlockKeys) -> Passes[Array]:
        """Into an empty slot, from where what was kept ends; returns the last row."""
        if self._chunked is None:
            content.slot, row = self.engine.open(prompt)
            lease.num_read = len(text_ids(prompt))
            return row
        num_unread = self._chunked.measure(prompt)
        kept = self._before.find(keys, num_unread)
        content.slot = self._chunked.reserve(prompt, kept)
        num_unread -= sum(piece.num_tokens for piece in kept)
        while True:
            num_tokens = min(num_unread, CHUNK)
            logits = yield PromptChunk(content.slot, num_tokens)
            num_unread -= num_tokens
            if not num_unread:
                require_finite(logits, self.engine.name)
                self._before.keep(keys, content.slot)
                return logits[-1]

    def _read_on(self, spare: SpareSlot, token_ids: Sequence[int]) -> Passes[Array]:
        """From where a spare slot goes with these tokens; returns the last row."""
        num_kept = num_common(spare.token_ids, token_ids)
        if num_kept == len(token_ids) > spare.num_base:
            num_kept -= 1  # its row is not kept
        self.engine.crop(spare.slot, num_kept - spare.num_base)
        row = spare.row
        for start in range(num_kept, len(token_ids), CHUNK):
            chunk = token_ids[start : start + CHUNK]
            row = (yield Extension.chain(spare.slot, chunk, num_rows=1))[-1]
        return row

    def _give_back(self, lease: DraftLease, drafter: Drafter, text: Sequence[int]) -> Passes[None]:
        """Keep the slot as a spare one, or close it where it is not known what it holds."""
        content = self._lent[lease]
        if self._before.keeps_slots and lease.slot is not None and content.is_known and content.prompt_ids is not None:
            held = yield from drafter.leave_tree(text)
            self._before.spares.append(
                SpareSlot(lease.slot, [*content.prompt_ids, *held], content.num_base, content.row)
            )
            content.slot = None
        lease.slot = None
