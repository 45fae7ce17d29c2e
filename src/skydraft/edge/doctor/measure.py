"""Short measurements of a draft model, of a link and of a cloud, on texts that are thrown away."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from skydraft.core import Exact, Origin, Prompt, SamplingParams, ShareLevel, TokenSegment
from skydraft.decoding.edge_session import EdgeSession
from skydraft.edge.border import Border
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.cloud_client import CloudClient
from skydraft.edge.drafter import LoneDrafter
from skydraft.edge.patience import Patience
from skydraft.engines.base import Engine, Extension
from skydraft.engines.prompt_checks import text_ids
from skydraft.text.vocabulary import Vocabulary
from skydraft.transport.websocket import Connection

PROMPT_TEXT = "The weather today is mild and"
BATCH_SIZE = 8
MEASURE_S = 1.0  # of each batch size
NUM_PINGS = 20
NUM_ROUNDS = 8
BLOCK_LENGTH = 5
NUM_CLOUD_TOKENS = 24
NUM_TEXT_TOKENS = NUM_ROUNDS * (BLOCK_LENGTH + 1)
PATIENCE = Patience("fail", 0.0, silence_s=30.0, standstill_s=300.0)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class DraftSpeed:
    """step_s: of a forward pass with one token of one text. batch_step_s: of one of each of BATCH_SIZE texts."""

    step_s: float
    batch_step_s: float


@dataclass(frozen=True)
class LinkSpeed:
    """Of pings over the open connection.

    round_trip_s: median. jitter_s: mean difference of successive ones, as in RFC 3550.
    """

    round_trip_s: float
    jitter_s: float
    num_pings: int


@dataclass(frozen=True)
class Rounds:
    """Of a text that was drafted here and judged in the cloud.

    open_s: until the session stood. draft_s, round_s: of a block, medians: the first one waits for the prompts.
    num_accepted: of num_drafted tokens. tokens_per_s: what a usual round added, in the time of a usual round.
    """

    open_s: float
    draft_s: float
    round_s: float
    num_drafted: int
    num_accepted: int
    tokens_per_s: float


def measurement_prompt(encode: Callable[[str], Sequence[int]]) -> Prompt:
    """What the texts of a measurement continue."""
    return Prompt((TokenSegment(tuple(encode(PROMPT_TEXT))),))


def measure_draft(engine: Engine, prompt: Prompt) -> DraftSpeed:
    """Time forward passes for about two seconds.

    Args:
        engine: with BATCH_SIZE free slots.
    Raises:
        EngineError: it cannot take the prompt.
    """
    slots = [engine.open(prompt).slot for _ in range(BATCH_SIZE)]
    token_id = text_ids(prompt)[-1]

    def step_s(num_texts: int) -> float:
        extensions, times_s = [Extension.chain(slot, [token_id]) for slot in slots[:num_texts]], list[float]()
        end_s = time.perf_counter() + MEASURE_S
        while len(times_s) < 3 or time.perf_counter() < end_s:
            start_s = time.perf_counter()
            engine.extend(extensions)
            times_s.append(time.perf_counter() - start_s)
            for slot in slots[:num_texts]:
                engine.crop(slot, 0)
        return statistics.median(times_s[1:])  # the first one warms up

    try:
        return DraftSpeed(step_s(1), step_s(BATCH_SIZE))
    finally:
        for slot in slots:
            engine.close(slot)


async def measure_link(connection: Connection) -> LinkSpeed:
    """Time pings, one after the other.

    Raises:
        TransportError: the connection is lost, or a ping is not answered.
    """
    await connection.round_trip_s()  # the first one finds a path that has not settled
    times_s = [await connection.round_trip_s() for _ in range(NUM_PINGS)]
    changes_s = [abs(after - before) for before, after in itertools.pairwise(times_s)]
    return LinkSpeed(statistics.median(times_s), statistics.mean(changes_s), NUM_PINGS)


class Measurement:
    """Short texts with one cloud, greedy and exact, of the measurement's prompt only.

    Args:
        vocabulary: of the draft model.
        share: what may leave the device; the prompt and the tokens are sent as any others.
    """

    def __init__(
        self, address: CloudAddress, vocabulary: Vocabulary, prompt: Prompt, share: ShareLevel = ShareLevel.TOKENS
    ) -> None:
        self._address = address
        self._vocabulary = vocabulary
        self._prompt = prompt
        self._border = Border(share)

    async def write_together(self, engine: Engine) -> Rounds:
        """Draft here, and have every block judged.

        Raises:
            VocabularyMismatch: the models do not share their token ids; with the first that differ.
            TransportError, CloudFault, RemoteProtocolError: the cloud is lost, silent, or refuses.
            DisclosureError: nothing may leave the device.
            EngineError: the draft model cannot take the prompt.
        """
        client = self._client(NUM_TEXT_TOKENS)
        session, drafter = client.session, LoneDrafter(engine, client.session.sampling, Exact())
        draft_times_s, round_times_s, num_drafted = list[float](), list[float](), 0
        try:
            await client.connect()
            _, open_s = await _timed(client.open())
            await asyncio.to_thread(drafter.open, self._prompt)
            while not session.is_complete:
                length = min(BLOCK_LENGTH, session.max_block_length)
                work = asyncio.to_thread(drafter.draft, session.token_ids, length, session.num_shared_ids)
                block, draft_s = await _timed(work)
                _, round_s = await _timed(client.ask(block))
                draft_times_s.append(draft_s)
                round_times_s.append(round_s)
                num_drafted += len(block.token_ids)
        finally:
            drafter.close()
            await client.close()
        num_accepted = sum(token.origin is Origin.ACCEPTED for token in session.tokens())
        draft_s, round_s = statistics.median(draft_times_s), statistics.median(round_times_s)
        tokens_per_s = len(session.tokens()) / len(round_times_s) / (draft_s + round_s)
        return Rounds(open_s, draft_s, round_s, num_drafted, num_accepted, tokens_per_s)

    async def write_in_cloud(self) -> float:
        """Have the cloud write alone; tokens a second, in the usual pause between two arrivals.

        Raises: as `write_together`.
        """
        client = self._client(NUM_CLOUD_TOKENS)
        try:
            await client.open()
            arrivals_s = [time.perf_counter()]
            while not client.session.is_complete:
                await client.listen(NUM_CLOUD_TOKENS)
                arrivals_s.append(time.perf_counter())
        finally:
            await client.close()
        pauses_s = [after - before for before, after in itertools.pairwise(arrivals_s)]
        return len(client.session.token_ids) / len(pauses_s) / statistics.median(pauses_s)

    def _client(self, num_tokens: int) -> CloudClient:
        sampling = SamplingParams(max_tokens=num_tokens)  # without ids that end it: the text has its length
        session = EdgeSession(self._vocabulary, self._prompt, sampling, Exact())
        return CloudClient(session, self._border, self._address, PATIENCE)


async def _timed(work: Awaitable[_Result]) -> tuple[_Result, float]:
    start_s = time.perf_counter()
    result = await work
    return result, time.perf_counter() - start_s
