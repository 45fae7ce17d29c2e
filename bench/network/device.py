"""The device: writes a text in a mode and says what it took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.network.capture import NOTHING, Capture, Crossed
from bench.network.naive import write_naively
from bench.network.profiles import Profile
from bench.network.rows import AUTO, CLOUD, EDGE, NAIVE, Cell, Key, Lateness, Row, Wire
from bench.network.testbed import Server, Site
from bench.network.texts import Prompts, row_of, sampling_of
from skydraft.config import DeviceSettings
from skydraft.core import Exact, Mode, Prompt, TextPiece, TokenSegment, tokens_of
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.job import Job
from skydraft.edge.patience import Patience
from skydraft.edge.writer import Writer
from skydraft.engines.base import Engine
from skydraft.engines.emulated.paced import PacedEngine
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.engines.settings import EngineSettings
from skydraft.errors import TransportError
from skydraft.policies.gate import AlwaysGate
from skydraft.policies.way import parse_way
from skydraft.tasks.base import PromptPair
from skydraft.text.token_reader import TokenReader

MODES = (CLOUD, EDGE, "wait:1", "wait:2", "wait:4", "wait:8", "pipelined:4", "prepared:4", "tree", "free", AUTO, NAIVE)

TEXT_S = 300.0  # no text of the grid takes so long


@dataclass
class Arrivals:
    """When tokens came.

    times_s, counts: of each arrival, from the start of the text.
    first_crossed: what had crossed the wire when the first one came.
    """

    capture: Capture | None
    started_s: float = field(default_factory=time.perf_counter)
    times_s: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    first_crossed: Crossed = NOTHING
    last_crossed: Crossed = NOTHING

    def note(self, num_tokens: int) -> None:
        self.times_s.append(time.perf_counter() - self.started_s)
        self.counts.append(num_tokens)
        if self.capture is not None:
            self.last_crossed = self.capture.crossed
            if len(self.times_s) == 1:
                self.first_crossed = self.last_crossed

    def note_text(self, pieces: Sequence[TextPiece]) -> None:
        self.note(len(tokens_of(pieces)))

    def wire(self, before: Crossed) -> Wire | None:
        if self.capture is None:
            return None
        after = self.capture.crossed
        return Wire(
            after.up - before.up,
            after.down - before.down,
            self.last_crossed.up - self.first_crossed.up,
            self.last_crossed.down - self.first_crossed.down,
        )


class _Written(NamedTuple):
    token_ids: list[int]
    rounds: int
    positions: int
    up: dict[str, int]
    down: dict[str, int]


class Device:
    """Of one profile, with its drafts; what it learnt of a cell serves the cell's later runs, as with a real cloud.

    Args:
        captures: of the wire, by port; empty where that is not to be had.
    """

    def __init__(self, profile: Profile, site: Site, prompts: Prompts, captures: dict[int, Capture]) -> None:
        self.prompts = prompts
        self._profile = profile
        self._site = site
        self._captures = captures
        self._engines: dict[str, PacedEngine] = {}
        self._readers: dict[str, TokenReader] = {}
        self._writers: dict[Cell, Writer] = {}

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    async def measure(self, key: Key) -> Row:
        """Write one text.

        Raises:
            SkydraftError, OSError: the cloud or the baseline is lost.
        """
        server = self._site.naive if key.mode == NAIVE else self._site.cloud
        engine, capture = self._engine(key.cell.draft), self._captures.get(server.linked.port)
        device_before, cloud_before = Lateness.of(engine.counts), await server.lateness()
        crossed_before = capture.crossed if capture else NOTHING
        arrivals = Arrivals(capture)
        written = await self._write(key, engine, server, arrivals)
        return row_of(
            key,
            self.prompts,
            written.token_ids,
            seconds=arrivals.times_s[-1],
            first_token_s=arrivals.times_s[0],
            num_first=arrivals.counts[0],
            rounds=written.rounds,
            positions=written.positions,
            up=written.up,
            down=written.down,
            device=Lateness.of(engine.counts).since(device_before),
            cloud=(await server.lateness()).since(cloud_before),
            wire=None if key.mode == EDGE else arrivals.wire(crossed_before),
        )

    async def _write(self, key: Key, engine: Engine, server: Server, arrivals: Arrivals) -> _Written:
        if key.mode == NAIVE:
            return self._write_naively(key, engine, server, arrivals)
        writer = self._writers.setdefault(key.cell, Writer(engine))
        try:
            async with asyncio.timeout(TEXT_S):
                report = await writer.write(self._job(key, engine, server), arrivals.note_text)
        except TimeoutError:
            raise TransportError(
                f"mode {key.mode} wrote {sum(arrivals.counts)} of {key.tokens} tokens in {TEXT_S:g} s ({key.cell})"
            ) from None
        finally:
            writer.forget_texts()  # writers share the engine, and a text finds nothing of another
        token_ids = [token.token_id for token in report.tokens]
        record = report.disclosure
        return _Written(token_ids, report.rounds, report.num_positions, dict(record.up), dict(record.down))

    def _write_naively(self, key: Key, engine: Engine, server: Server, arrivals: Arrivals) -> _Written:
        naive = write_naively(server.linked, engine, self.prompts[key.run], sampling_of(key), arrivals.note)
        return _Written(naive.token_ids, naive.rounds, naive.positions, {"json": naive.up}, {"json": naive.down})

    def _job(self, key: Key, engine: Engine, server: Server) -> Job:
        prompt = Prompt((TokenSegment(self.prompts[key.run]),))
        is_alone = key.mode in (CLOUD, EDGE)
        return Job(
            settings=DeviceSettings(mode=Mode(key.mode) if is_alone else Mode.HYBRID),
            prompts=PromptPair(prompt, prompt),
            vocabulary=engine.vocabulary,
            reader=self._readers[key.cell.draft],
            sampling=sampling_of(key),
            rule=Exact(),
            gate=AlwaysGate(),
            patience=Patience("fail", 0),
            address=CloudAddress(f"ws://{server.linked}"),
            way=None if is_alone else parse_way(key.mode),
        )

    def _engine(self, draft: str) -> PacedEngine:
        if draft not in self._engines:
            engine = load_engine(self._profile.draft(draft), "draft", EngineSettings(num_threads=1))
            assert isinstance(engine, PacedEngine)
            self._engines[draft] = engine
            self._readers[draft] = TokenReader(load_tokenizer(self._profile.draft(draft), "draft"))
        return self._engines[draft]
