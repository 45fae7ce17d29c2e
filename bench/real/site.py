"""A cloud with the real target in a process of its own, an emulated link in front of it, and devices with the draft."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from msgspec.structs import replace

from bench.observed import ObservedCloud, observed_cloud
from bench.real.pair import MAX_LENGTH, NUM_TOKENS, Pair, TextKey
from skydraft.config import DeviceSettings
from skydraft.core import Exact, Mode, Objective, PassTimes, TextPiece
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.job import Job
from skydraft.edge.patience import Patience
from skydraft.edge.report import Report
from skydraft.edge.writer import Writer
from skydraft.engines.base import Engine
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.engines.time_passes import time_passes
from skydraft.policies.gate import AlwaysGate
from skydraft.policies.way import parse_way
from skydraft.tasks.base import PromptPair
from skydraft.text.token_reader import TokenReader
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings

CLOUD = "cloud"  # the way of the cloud alone
NO_SHAPE: Mapping[str, Any] = {}
RATE_MBPS = 10.0
PATIENCE_S = 240.0  # until a killed cloud is back, on a busy machine
# Without its self-test, which takes longer than ten texts: whether texts are equal is what is measured here.
FLAGS = ("--slots", "2", "--max-length", str(MAX_LENGTH), "--threads", "1", "--no-self-test")
NOTHING_KEPT = ("--prefix-cache", "0")

OnText = Callable[[Sequence[TextPiece]], None]
Wrap = Callable[[Engine], Engine]


class Site:
    """Made by `open_site`.

    Args:
        wrap: what is made of each draft engine.
        is_linked: False: devices speak with the cloud itself.
        keeps_prompts: the cloud keeps what it has read of prompts; not where each text is written several times.
        objective: of the devices.
    """

    def __init__(
        self,
        pair: Pair,
        stack: ExitStack,
        wrap: Wrap,
        is_linked: bool,
        keeps_prompts: bool,
        objective: Objective,
    ) -> None:
        self.pair = pair
        self._objective = objective
        self._flags = FLAGS if keeps_prompts else (*FLAGS, *NOTHING_KEPT)
        self._wrap, self._is_linked = wrap, is_linked
        self._stack = stack
        self._engines: list[Engine] = []
        self._draft_times: list[PassTimes | None] = []
        self._writers: dict[tuple[int, str], Writer] = {}

    async def start(self) -> None:
        self.cloud = await self._started()
        self.link = Link(self._address)
        await self.link.__aenter__()

    async def close(self) -> None:
        self.forget()
        await self.link.__aexit__()

    def forget(self) -> None:
        """Devices come that have learnt nothing yet."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def set_round_trip(self, round_trip_ms: float) -> None:
        path = PathSettings(delay_ms=round_trip_ms / 2, rate_mbps=RATE_MBPS)
        self.link.apply(LinkSettings(up=path, down=path))

    async def replace_cloud(self) -> None:
        """Kill the cloud (SIGKILL), and start another, which knows nothing of what that did."""
        self.cloud.kill()
        self.cloud = await self._started()
        self.link.upstream = self._address

    async def write(
        self,
        key: TextKey,
        way: str,
        on_text: OnText = lambda _: None,
        device: int = 0,
        num_tokens: int = NUM_TOKENS,
        shape: Mapping[str, Any] = NO_SHAPE,
    ) -> Report:
        """Write one text.

        Args:
            way: to draft; CLOUD: the cloud writes alone.
            shape: more of `SamplingParams`.
            device: that writes it; each has a draft model of its own. What it learnt serves its next text in this way.
        Raises:
            SkydraftError: the cloud is lost for good.
        """
        while way != CLOUD and len(self._engines) <= device:
            settings = EngineSettings(num_threads=1, max_length=MAX_LENGTH)
            engine = await asyncio.to_thread(load_engine, self.pair.draft, "draft", settings)
            self._draft_times.append(time_passes(engine))  # as a device does when it is loaded
            self._engines.append(self._wrap(engine))
        if (device, way) not in self._writers:
            self._writers[device, way] = (
                Writer(None) if way == CLOUD else Writer(self._engines[device], self._draft_times[device])
            )
        writer = self._writers[device, way]
        try:
            return await writer.write(self._job(key, way, num_tokens, shape), on_text)
        finally:
            writer.forget_texts()  # writers share the engine, and a text finds nothing of another

    def engine(self, device: int) -> Engine:
        return self._engines[device]

    def _job(self, key: TextKey, way: str, num_tokens: int, shape: Mapping[str, Any]) -> Job:
        prompt, vocabulary = self.pair.prompt(key), self.pair.tokenizer.vocabulary
        return Job(
            settings=DeviceSettings(mode=Mode.CLOUD if way == CLOUD else Mode.HYBRID, objective=self._objective),
            prompts=PromptPair(prompt, prompt),
            vocabulary=vocabulary,
            reader=TokenReader(self.pair.tokenizer),
            sampling=replace(key.sampling(vocabulary.end_ids, num_tokens), **shape),
            rule=Exact(),
            gate=AlwaysGate(),
            patience=Patience("wait", PATIENCE_S),
            address=CloudAddress(f"ws://{self.link.address if self._is_linked else self._address}"),
            way=None if way == CLOUD else parse_way(way),
        )

    @property
    def _address(self) -> Address:
        return Address.parse(self.cloud.url.removeprefix("ws://"))

    async def _started(self) -> ObservedCloud:
        return await asyncio.to_thread(self._stack.enter_context, observed_cloud(self.pair.target, *self._flags))


@asynccontextmanager
async def open_site(
    pair: Pair,
    wrap: Wrap = lambda engine: engine,
    is_linked: bool = True,
    keeps_prompts: bool = False,
    objective: Objective = Objective.LATENCY,
) -> AsyncIterator[Site]:
    """Raises: TransportError: the cloud did not start."""
    with ExitStack() as stack:
        site = Site(pair, stack, wrap, is_linked, keeps_prompts, objective)
        await site.start()
        try:
            yield site
        finally:
            await site.close()
