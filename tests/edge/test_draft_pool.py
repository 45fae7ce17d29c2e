"""Several texts at once on one draft engine: each is what it would be alone, and their passes are shared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from skydraft.core import Exact, Mode, Prompt, SamplingParams, TensorSegment, TokenSegment
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.draft_pool import DraftPool
from skydraft.edge.job import Job
from skydraft.edge.report import Report
from skydraft.edge.writer import Writer
from skydraft.engines.base import EngineLimits
from skydraft.engines.emulated.paced import Pace
from skydraft.engines.emulated.table import TableEngine
from skydraft.engines.emulated.table_spec import load_table
from skydraft.errors import CacheOverflow, PromptRejected
from skydraft.policies.way import parse_way
from skydraft.tasks.base import PromptPair
from tests.edge.test_writer import DRAFT, JOB, TARGET, changed, ids
from tests.engines.operations import whole_prompts
from tests.linked import CountingTable, cloud_only, counting, table
from tests.virtual_cloud import in_pace, virtual_cloud
from tests.virtual_time import in_virtual_time

NUM_TEXTS = 5
LENGTH = 70  # more than a turn


def prompt_of(*token_ids: int) -> Prompt:
    return Prompt((TokenSegment(token_ids),))


def sampling_of(index: int, length: int = LENGTH) -> SamplingParams:
    return SamplingParams(temperature=0.8, seed=index, max_tokens=length)


def pool_of(writer: Writer) -> DraftPool:
    assert writer._pool is not None
    return writer._pool


async def write_all(writer: Writer, jobs: Sequence[Job]) -> list[Report]:
    return await asyncio.gather(*(writer.write(job, lambda _: None) for job in jobs))


def jobs(**changes: Any) -> list[Job]:
    return [changed(JOB, sampling=sampling_of(index), **changes) for index in range(NUM_TEXTS)]


@pytest.mark.parametrize("num_slots", [1, 3, NUM_TEXTS])
async def test_texts_that_a_device_writes_at_once_are_those_that_it_writes_one_by_one(num_slots: int) -> None:
    writer = Writer(table(DRAFT, num_slots))
    reports = await write_all(writer, jobs(mode=Mode.EDGE))
    writer.close()
    assert [ids(report) for report in reports] == [
        cloud_only(table(DRAFT), sampling_of(index)) for index in range(NUM_TEXTS)
    ]


async def test_an_engine_that_reads_prompts_whole_is_shared_too() -> None:
    writer = Writer(whole_prompts(table(DRAFT, 2)))
    reports = await write_all(writer, jobs(mode=Mode.EDGE))
    writer.close()
    assert ids(reports[-1]) == cloud_only(table(DRAFT), sampling_of(NUM_TEXTS - 1))


@pytest.mark.parametrize("way", ["wait:5", "pipelined:3", "prepared:4", "tree", "free", "auto"])
def test_texts_at_once_with_a_cloud_are_the_clouds_own_though_they_lose_their_slots(way: str) -> None:
    @in_virtual_time
    async def write() -> None:
        draft = in_pace(table(DRAFT, 2), Pace(step_ms=2, node_ms=0.1))
        async with virtual_cloud(in_pace(table(TARGET), Pace(step_ms=20, node_ms=1))) as url:
            writer = Writer(draft)
            reports = await write_all(writer, jobs(address=CloudAddress(url), way=parse_way(way)))
            writer.close()
        truth = [cloud_only(table(TARGET), sampling_of(index)) for index in range(NUM_TEXTS)]
        assert [ids(report) for report in reports] == truth
        if way != "auto":
            assert pool_of(writer).num_taken_back > 0

    write()


@in_virtual_time
async def test_texts_at_once_share_their_passes() -> None:
    writer = Writer(in_pace(table(DRAFT, NUM_TEXTS), Pace(step_ms=10)))
    await write_all(writer, jobs(mode=Mode.EDGE))
    writer.close()
    assert pool_of(writer).num_passes <= LENGTH + NUM_TEXTS  # and not NUM_TEXTS times as many


@in_virtual_time
async def test_a_text_that_is_cancelled_gives_its_slot_back_and_what_it_wanted_is_not_run() -> None:
    pass_s = 0.01
    writer = Writer(in_pace(table(DRAFT, 1), Pace(step_ms=1000 * pass_s)))
    long = asyncio.create_task(
        writer.write(changed(JOB, mode=Mode.EDGE, sampling=sampling_of(1, 2000)), lambda _: None)
    )
    waiting = asyncio.create_task(writer.write(changed(JOB, mode=Mode.EDGE, sampling=sampling_of(2)), lambda _: None))
    await asyncio.sleep(20.5 * pass_s)
    loop = asyncio.get_running_loop()
    for task in (waiting, long):
        begun_s = loop.time()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert loop.time() - begun_s < 2 * pass_s
    report = await writer.write(changed(JOB, mode=Mode.EDGE, sampling=sampling_of(3, 9)), lambda _: None)
    assert ids(report) == cloud_only(table(DRAFT), sampling_of(3, 9))
    writer.close()


@in_virtual_time
async def test_a_text_that_is_cancelled_while_its_prompt_is_read_leaves_nothing() -> None:
    engine = table(DRAFT, 1)
    writer = Writer(in_pace(engine, Pace(step_ms=10)))
    prompt = prompt_of(*[1] * 1000)
    job = changed(JOB, mode=Mode.EDGE, prompts=PromptPair(prompt, prompt))
    for pause_s in (0.0, 0.005, 0.025):
        task = asyncio.create_task(writer.write(job, lambda _: None))
        await asyncio.sleep(pause_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    report = await writer.write(changed(JOB, mode=Mode.EDGE, sampling=sampling_of(3, 9)), lambda _: None)
    assert ids(report) == cloud_only(table(DRAFT), sampling_of(3, 9))
    writer.close()


async def test_a_prompt_that_is_refused_fails_alone() -> None:
    writer = Writer(table(DRAFT, 2, max_length=200))
    bad, long = prompt_of(99), prompt_of(*[1] * 300)
    odd = [changed(JOB, mode=Mode.EDGE, prompts=PromptPair(prompt, prompt)) for prompt in (bad, long)]
    results = await asyncio.gather(
        *(writer.write(job, lambda _: None) for job in (*odd, *jobs(mode=Mode.EDGE))), return_exceptions=True
    )
    writer.close()
    assert isinstance(results[0], PromptRejected)
    assert isinstance(results[1], CacheOverflow)
    assert all(isinstance(result, Report) for result in results[2:])


async def test_texts_that_have_no_room_for_more_do_not_end_those_beside_them() -> None:
    small = 30
    writer = Writer(table(DRAFT, 2, max_length=small))
    first, second = await asyncio.gather(
        writer.write(changed(JOB, mode=Mode.EDGE, sampling=sampling_of(1, 60)), lambda _: None),
        writer.write(changed(JOB, mode=Mode.EDGE, sampling=sampling_of(2, 10)), lambda _: None),
    )
    writer.close()
    assert first.ended_early is not None
    assert ids(second) == cloud_only(table(DRAFT), sampling_of(2, 10))


def conversing(num_slots: int) -> tuple[CountingTable, Writer]:
    engine = counting(table(DRAFT, num_slots))
    return engine, Writer(engine)


async def test_a_prompt_that_goes_on_from_an_earlier_text_is_read_from_there() -> None:
    engine, writer = conversing(2)
    turns = list(range(1, 8)) * 20
    first = await writer.write(
        changed(JOB, mode=Mode.EDGE, prompts=PromptPair(prompt_of(*turns), None), sampling=sampling_of(1, 12)),
        lambda _: None,
    )
    so_far = [*turns, *ids(first)]
    assert engine.num_prompt_tokens == len(turns)
    again = prompt_of(*so_far, 3, 4, 5)
    second = await writer.write(
        changed(JOB, mode=Mode.EDGE, prompts=PromptPair(again, None), sampling=sampling_of(2, 12)), lambda _: None
    )
    writer.close()
    assert ids(second) == cloud_only(table(DRAFT), sampling_of(2, 12), again)
    assert engine.num_prompt_tokens == len(turns)
    assert engine.num_tokens_extended <= 12 + 12 + 4  # the last token of an answer was not read


@pytest.mark.parametrize("num_more", [0, 5])
async def test_a_prompt_that_comes_again_or_goes_another_way_is_right(num_more: int) -> None:
    engine, writer = conversing(1)
    turns = [1, 2, 3, 4]
    for seed in range(3):
        prompt = prompt_of(*turns, *[seed] * num_more)
        report = await writer.write(
            changed(JOB, mode=Mode.EDGE, prompts=PromptPair(prompt, None), sampling=sampling_of(seed)), lambda _: None
        )
        assert ids(report) == cloud_only(table(DRAFT), sampling_of(seed), prompt)
    writer.close()
    assert engine.num_prompt_tokens == (4 if not num_more else 3 * 9)


async def test_a_conversation_is_drafted_from_where_it_was(address: str) -> None:
    engine, writer = conversing(1)
    prompt: tuple[int, ...] = (1, 2, 3)
    for seed in range(3):
        whole = prompt_of(*prompt)
        job = changed(
            JOB,
            address=CloudAddress(address),
            way=parse_way("tree"),
            prompts=PromptPair(whole, whole),
            sampling=sampling_of(seed, 30),
        )
        report = await writer.write(job, lambda _: None)
        assert ids(report) == cloud_only(table(TARGET), sampling_of(seed, 30), whole)
        prompt = (*prompt, *ids(report), 5, 6)
    writer.close()
    assert engine.num_prompt_tokens == 3


def deep(num_slots: int) -> CountingTable:
    """Rows depend on all tokens before."""
    rows = np.random.default_rng(3).standard_normal((4096, 8), dtype=np.float32) * 2
    return counting(TableEngine(rows, order=400, limits=EngineLimits(num_slots, 400)))


def asking(*token_ids: int, seed: int = 1) -> Job:
    prompts = PromptPair(prompt_of(*token_ids), None)
    return changed(JOB, mode=Mode.EDGE, prompts=prompts, sampling=sampling_of(seed, 12))


SYSTEM = [1 + index * index % 7 for index in range(100)]


@pytest.mark.parametrize("num_slots", [1, 2])
async def test_a_system_message_is_read_once_and_conversations_that_take_turns_go_on(num_slots: int) -> None:
    engine = deep(num_slots)
    writer = Writer(engine)
    talks: list[list[int]] = [[*SYSTEM, seed] for seed in range(3)]
    for turn in range(4):
        for seed, talk in enumerate(talks):
            report = await writer.write(asking(*talk, seed=seed), lambda _: None)
            assert ids(report) == cloud_only(deep(1), sampling_of(seed, 12), prompt_of(*talk))
            talk += [*ids(report), turn, seed]
    writer.close()
    assert engine.num_prompt_tokens + engine.num_tokens_extended < 101 + 12 * (32 + 14 + 12)


@pytest.mark.parametrize("num_slots", [2, 6])
async def test_prompts_that_come_together_wait_for_the_one_that_reads_what_they_share(num_slots: int) -> None:
    engine = deep(num_slots)
    writer = Writer(engine)
    texts = [asking(*SYSTEM, seed % 2, seed=seed) for seed in range(6)]
    reports = await write_all(writer, texts)
    writer.close()
    for seed, report in enumerate(reports):
        assert ids(report) == cloud_only(deep(1), sampling_of(seed, 12), prompt_of(*SYSTEM, seed % 2))
    assert engine.num_prompt_tokens <= 101 + 5 * (101 - 96)


async def test_the_text_of_a_slot_that_another_text_needs_is_kept() -> None:
    engine = deep(1)
    writer = Writer(engine)
    first = await writer.write(asking(*SYSTEM), lambda _: None)
    await writer.write(asking(5, *SYSTEM), lambda _: None)
    before = engine.num_prompt_tokens
    prompt = [*SYSTEM, *ids(first), 3, 4, *SYSTEM]
    await writer.write(asking(*prompt), lambda _: None)
    assert engine.num_prompt_tokens - before == len(prompt) - 96  # three blocks; the answer ends within the fourth
    await writer.write(asking(5, *SYSTEM), lambda _: None)
    before = engine.num_prompt_tokens
    await writer.write(asking(*prompt, 6, 6), lambda _: None)
    assert engine.num_prompt_tokens - before == (len(prompt) + 2) % 32
    writer.close()


async def test_without_a_prefix_cache_each_prompt_is_read_whole() -> None:
    engine = deep(2)
    writer = Writer(engine, max_prefix_bytes=0)
    for _ in range(3):
        await writer.write(asking(*SYSTEM), lambda _: None)
    writer.close()
    assert engine.num_prompt_tokens == 300


async def test_texts_that_are_forgotten_leave_nothing() -> None:
    engine = deep(1)
    writer = Writer(engine)
    for _ in range(2):
        await writer.write(asking(*SYSTEM), lambda _: None)
        writer.forget_texts()
    writer.close()
    assert engine.num_prompt_tokens == 200


async def test_a_prompt_with_a_tensor_is_read_whole_each_time() -> None:
    model = "table:vocab=8,seed=5,order=2,tensors=1"
    engine = load_table(model, EngineLimits(1, 400))
    writer = Writer(engine)
    for value in (1.0, 2.0):
        data = bytes([int(value)]) * 4
        prompt = Prompt((TokenSegment((1, 2)), TensorSegment("log_mel", "float32", (1, 1), data), TokenSegment((3,))))
        job = changed(JOB, mode=Mode.EDGE, prompts=PromptPair(prompt, None), rule=Exact(), sampling=sampling_of(1, 20))
        report = await writer.write(job, lambda _: None)
        assert ids(report) == cloud_only(load_table(model, EngineLimits(1, 400)), sampling_of(1, 20), prompt)
    writer.close()


def test_a_device_is_used_in_one_event_loop_after_the_other() -> None:
    writer = Writer(table(DRAFT, 1))
    for _ in range(2):
        report = asyncio.run(writer.write(changed(JOB, mode=Mode.EDGE), lambda _: None))
        assert len(report.tokens) == 40
    writer.close()


def test_what_runs_when_the_event_loop_ends_is_given_up() -> None:
    writer = Writer(table(DRAFT, 1))

    async def begin() -> None:
        job, has_begun = changed(JOB, mode=Mode.EDGE, sampling=sampling_of(1, 4000)), asyncio.Event()
        task = asyncio.create_task(writer.write(job, lambda _: has_begun.set()))
        await has_begun.wait()
        task.cancel()

    asyncio.run(begin())
    report = asyncio.run(writer.write(changed(JOB, mode=Mode.EDGE), lambda _: None))
    assert len(report.tokens) == 40
    writer.close()


async def test_a_writer_that_is_closed_gives_all_slots_back() -> None:
    engine = table(DRAFT, 2)
    writer = Writer(engine)
    await write_all(writer, jobs(mode=Mode.EDGE))
    writer.close()
    for _ in range(2):
        engine.open(prompt_of(1, 2))
