"""The gateway against the Python client, with the text pair: both use one device and one cloud, over loopback.

The gateway's apps are a process of their own (`bench.gateway_apps`), as apps are.

Claims:
    overhead_ms_per_token: a text through the gateway, streamed, over the same text by the Python client.
    first_token_ratio: of 20 texts at once, the median time to the first token, over that of the Python client.
    streams_right: share of 20 streams at once, of several rounds, that are the cloud's own texts.
    cancel_ms: from an app's hanging up until neither device nor cloud has anything of its text; median.
    memory_growth: over many requests, of which the first tenth is left out: the process's median memory in their second
        half, over that in their first, less 1.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from bench.claims import Claim, parse_arguments, show
from bench.gateway_apps import Apps, Written, apps
from bench.observed import Sample, memory_growth
from skydraft.client import AsyncClient
from skydraft.cloud.serve import bind
from skydraft.config import GatewaySettings
from skydraft.edge.local_cloud import local_cloud
from skydraft.gateway.gateway import Gateway
from skydraft.gateway.serve import GatewayServer

PAIR = Path(__file__).parents[2] / "shared" / "text"
DRAFT, TARGET = PAIR / "draft-d32", PAIR / "target"
PROMPT = "Once upon a time, there was a little"
NUM_STREAMS = 20
NUM_TOKENS = 40
LOOK_S = 0.001
WARM_UP = 2


Write = Callable[[int], Awaitable[Written]]  # of a seed


class Site(NamedTuple):
    """A device, its gateway and their cloud. metrics_url: the cloud's."""

    client: AsyncClient
    gateway: Gateway
    apps: Apps
    http: httpx.AsyncClient
    metrics_url: str

    async def by_client(self, seed: int) -> Written:
        begin_s, first_s, texts = time.perf_counter(), 0.0, list[str]()
        async for piece in self.client.stream(PROMPT, raw=True, temperature=0.8, seed=seed, max_tokens=NUM_TOKENS):
            first_s = first_s or time.perf_counter() - begin_s
            texts.append(piece.text)
        return Written("".join(texts), first_s, time.perf_counter() - begin_s)

    async def by_cloud(self, seed: int) -> str:
        """What the cloud writes alone."""
        options = {"temperature": 0.8, "seed": seed, "max_tokens": NUM_TOKENS}
        return (await self.client.generate(PROMPT, raw=True, mode="cloud", **options)).text  # type: ignore[arg-type]

    async def by_gateway(self, seed: int) -> Written:
        (written,) = await self.crowd_by_gateway([seed])
        return written

    async def crowd_by_gateway(self, seeds: Sequence[int]) -> list[Written]:
        """All at once."""
        return await self.apps.stream([_request(seed) for seed in seeds])

    async def cancel(self, seed: int) -> float:
        """Hang up in the midst of a text; the seconds until all of it is gone."""
        async with self.http.stream("POST", "/completions", json=_request(seed, 2000)) as response:
            lines = response.aiter_lines()
            for _ in range(8):
                await anext(lines)
        begin_s = time.perf_counter()
        while self.gateway.num_present or await self._num_sessions():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        return time.perf_counter() - begin_s

    async def _num_sessions(self) -> float:
        exposition = (await self.http.get(self.metrics_url)).text
        (line,) = [line for line in exposition.splitlines() if line.startswith("skydraft_sessions ")]
        return float(line.split()[1])


def _request(seed: int, num_tokens: int = NUM_TOKENS) -> dict[str, object]:
    sampling = {"temperature": 0.8, "seed": seed, "max_tokens": num_tokens}
    return {"model": "any", "prompt": PROMPT, "stream": True, **sampling}


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    show(asyncio.run(_measure(arguments.quick)), arguments.json)


@asynccontextmanager
async def _site() -> AsyncIterator[Site]:
    async with local_cloud(str(TARGET), "--slots", str(NUM_STREAMS), "--threads", "1") as cloud:
        options = {"draft": str(DRAFT), "cloud": cloud, "num_threads": 1, "num_slots": 8}
        async with AsyncClient(**options) as client:  # type: ignore[arg-type]  # by their names
            settings, announced = GatewaySettings(port=0), asyncio.Queue[str]()
            gateway = Gateway(settings, client, "target")
            server = GatewayServer(gateway, announced.put_nowait)
            with bind(settings) as sock:
                serving = asyncio.create_task(server.serve(sockets=[sock]))
                limits = httpx.Limits(max_connections=NUM_STREAMS)
                async with httpx.AsyncClient(base_url=await announced.get(), timeout=None, limits=limits) as http:
                    with apps(str(http.base_url)) as running_apps:
                        yield Site(client, gateway, running_apps, http, cloud.replace("ws://", "http://") + "/metrics")
                server.should_exit = True
                await serving


async def _measure(is_quick: bool) -> list[Claim]:
    async with _site() as site:
        for seed in range(WARM_UP):
            await site.by_client(seed)
            await site.by_gateway(seed)
        overheads_ms = await _overheads_ms(site, 6 if is_quick else 60)
        ratios, num_right, num_streams = await _crowds(site, 1 if is_quick else 8)
        cancels_ms = [1000 * await site.cancel(seed) for seed in range(3 if is_quick else 30)]
        num_requests = 40 if is_quick else 1000
        growth = await _memory_growth(site, num_requests)
    return [
        Claim("overhead_ms_per_token", statistics.median(overheads_ms), "ms", len(overheads_ms)),
        Claim("first_token_ratio", statistics.median(ratios), "ratio", len(ratios)),
        Claim("streams_right", num_right / num_streams, "share", num_streams),
        Claim("cancel_ms", statistics.median(cancels_ms), "ms", len(cancels_ms)),
        Claim("memory_growth", growth, "share", num_requests),
    ]


async def _overheads_ms(site: Site, num_texts: int) -> list[float]:
    """Pairs of the same text, each way first in turn."""
    overheads = []
    for seed in range(num_texts):
        ways = [site.by_client, site.by_gateway]
        total_s = {}
        for way in ways if seed % 2 else reversed(ways):
            written = await way(seed)
            total_s[way] = written.total_s
        num_tokens = NUM_TOKENS
        overheads.append(1000 * (total_s[site.by_gateway] - total_s[site.by_client]) / num_tokens)
    return overheads


async def _crowds(site: Site, num_rounds: int) -> tuple[list[float], int, int]:
    """Ratios of first-token times, how many streams were right, and of how many."""
    truth = await asyncio.gather(*map(site.by_cloud, range(NUM_STREAMS)))
    ratios, num_right = [], 0
    for _ in range(num_rounds):
        by_client = await asyncio.gather(*map(site.by_client, range(NUM_STREAMS)))
        by_gateway = await site.crowd_by_gateway(range(NUM_STREAMS))
        ratios.append(_median_first_s(by_gateway) / _median_first_s(by_client))
        num_right += sum(each.text == right for each, right in zip(by_gateway, truth, strict=True))
    return ratios, num_right, num_rounds * NUM_STREAMS


def _median_first_s(texts: list[Written]) -> float:
    return statistics.median(text.first_s for text in texts)


async def _memory_growth(site: Site, num_requests: int) -> float:
    process, samples = psutil.Process(), list[Sample]()
    for seed in range(0, num_requests, NUM_STREAMS):
        await site.crowd_by_gateway(range(seed, seed + NUM_STREAMS))
        samples.append(Sample(seed, process.memory_info().rss, site.gateway.num_present, 0))
    return memory_growth(samples)


if __name__ == "__main__":
    main()
