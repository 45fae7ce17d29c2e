"""What skydraft itself takes beside the models: processor time of both sides outside of the models' passes."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from bench.claims import Claim
from bench.real.pair import Pair, TextKey
from bench.real.row_file import RowFile
from bench.real.site import Site, open_site
from skydraft.core import Prompt
from skydraft.engines.base import Array, Engine, EngineLimits, Extension, Prefilled, Slot
from skydraft.text.vocabulary import Vocabulary


class OverheadRow(msgspec.Struct, frozen=True):
    """One text.

    device_ms, cloud_ms: processor time a token outside of the models' passes, the prompt's included. A cloud tells how
        long its passes were, not their processor time: None where that was less, for the machine did something else.
    """

    kind: str
    number: int
    temperature: float
    way: str
    tokens: int
    device_ms: float
    cloud_ms: float | None

    @property
    def key(self) -> TextKey:
        return TextKey(self.kind, self.number, self.temperature)


class TimedEngine:
    """An engine whose work is timed. busy_s: processor time of its calls, on one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.row_promise = engine.row_promise
        self.busy_s = 0.0

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def vocabulary(self) -> Vocabulary:
        return self._engine.vocabulary

    @property
    def limits(self) -> EngineLimits:
        return self._engine.limits

    def open(self, prompt: Prompt) -> Prefilled:
        began_s = time.thread_time()
        try:
            return self._engine.open(prompt)
        finally:
            self.busy_s += time.thread_time() - began_s

    def extend(self, extensions: Sequence[Extension]) -> list[Array]:
        began_s = time.thread_time()
        try:
            return self._engine.extend(extensions)
        finally:
            self.busy_s += time.thread_time() - began_s

    def crop(self, slot: Slot, keep_length: int) -> None:
        self._engine.crop(slot, keep_length)

    def keep_path(self, slot: Slot, start: int, path: Sequence[int], rest: Sequence[int] = ()) -> None:
        self._engine.keep_path(slot, start, path, rest)

    def close(self, slot: Slot) -> None:
        self._engine.close(slot)


def measure_overhead(
    pair: Pair, keys: Sequence[TextKey], ways: Sequence[str], file: RowFile[OverheadRow], until_s: float
) -> None:
    """Write the texts that the file lacks without an emulated link, in every way.

    Args:
        until_s: of `time.monotonic`; no text begins later.
    """
    done = {(row.key, row.way) for row in file.rows}
    missing = [(key, way) for key in keys for way in ways if (key, way) not in done]
    if missing and time.monotonic() < until_s:
        asyncio.run(_measure(pair, missing, file, until_s))


async def _measure(
    pair: Pair, missing: Sequence[tuple[TextKey, str]], file: RowFile[OverheadRow], until_s: float
) -> None:
    async with open_site(pair, wrap=TimedEngine, is_linked=False) as site:
        await site.write(*missing[0], num_tokens=4)  # what is done once is done now
        for key, way in missing:
            if time.monotonic() > until_s:
                return
            file.add(await _measure_text(site, key, way))


async def _measure_text(site: Site, key: TextKey, way: str) -> OverheadRow:
    engine = site.engine(0)
    assert isinstance(engine, TimedEngine)
    before = (time.process_time(), engine.busy_s, site.cloud.cpu_s, site.cloud.total("forward_seconds_sum"))
    report = await site.write(key, way)
    after = (time.process_time(), engine.busy_s, site.cloud.cpu_s, site.cloud.total("forward_seconds_sum"))
    device_s, draft_s, cloud_s, forward_s = (late - early for early, late in zip(before, after, strict=True))
    count = len(report.tokens)
    device_ms = round(1000 * (device_s - draft_s) / count, 3)
    cloud_ms = round(1000 * (cloud_s - forward_s) / count, 3) if cloud_s > forward_s else None
    return OverheadRow(*key, way=way, tokens=count, device_ms=device_ms, cloud_ms=cloud_ms)


def overhead_claims(rows: Iterable[OverheadRow]) -> Iterator[Claim]:
    """overhead_device_ms, overhead_cloud_ms: a token, median of texts, by way."""
    by_way: dict[str, list[OverheadRow]] = {}
    for row in rows:
        by_way.setdefault(row.way, []).append(row)
    for way, some in by_way.items():
        name = way.replace(":", "_")
        yield Claim(f"overhead_device_ms_{name}", statistics.median(row.device_ms for row in some), "ms", len(some))
        if clouds_ms := [row.cloud_ms for row in some if row.cloud_ms is not None]:
            yield Claim(f"overhead_cloud_ms_{name}", statistics.median(clouds_ms), "ms", len(clouds_ms))
