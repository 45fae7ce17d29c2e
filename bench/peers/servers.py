"""The peers' processes: servers on the cloud's core, drafts and proxies on the device's, a link between them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.real.pair import Pair
from bench.real.site import RATE_MBPS
from bench.real.speed import CLOUD_CORE, DEVICE_CORE
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings

HERE = Path(__file__).parent
READY_S = 120.0
ALONE, BESIDE, TIGHTWAD = "llama.cpp alone", "llama.cpp, draft beside it", "tightwad 0.5.4"


@dataclass(frozen=True)
class Peer:
    """A way to have a text from the far side of a link.

    url: that is asked for a text. link: which it crosses, or what stands behind the url does.
    """

    name: str
    url: str
    link: Link

    def set_round_trip(self, round_trip_ms: float) -> None:
        path = PathSettings(delay_ms=round_trip_ms / 2, rate_mbps=RATE_MBPS)
        self.link.apply(LinkSettings(up=path, down=path))


@asynccontextmanager
async def running_peers(pair: Pair, python: Path) -> AsyncIterator[list[Peer]]:
    """Start all of them.

    Args:
        python: that has xllamacpp and tightwad.
    Raises:
        OSError: one does not start.
    """
    async with AsyncExitStack() as stack:

        async def serve(script: str, core: int, *arguments: str, port: int) -> None:
            command = [str(python), str(HERE / script), *arguments]
            await stack.enter_async_context(_running(command, core, f"http://127.0.0.1:{port}/v1/models"))

        async def linked(port: int) -> Link:
            return await stack.enter_async_context(Link(Address("127.0.0.1", port)))

        alone, beside, target, draft, proxy = (_free_port() for _ in range(5))
        await serve("llama_server.py", CLOUD_CORE, pair.target, str(alone), port=alone)
        await serve("llama_server.py", CLOUD_CORE, pair.target, str(target), port=target)
        await serve("llama_server.py", CLOUD_CORE, pair.target, str(beside), pair.draft, port=beside)
        await serve("llama_server.py", DEVICE_CORE, pair.draft, str(draft), port=draft)
        links = [await linked(port) for port in (alone, beside, target)]
        urls = [f"http://{link.address}" for link in links]
        await serve("tightwad_proxy.py", DEVICE_CORE, str(proxy), f"http://127.0.0.1:{draft}", urls[2], port=proxy)
        yield [
            Peer(ALONE, urls[0], links[0]),
            Peer(BESIDE, urls[1], links[1]),
            Peer(TIGHTWAD, f"http://127.0.0.1:{proxy}", links[2]),
        ]


@asynccontextmanager
async def _running(command: list[str], core: int, health: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        "taskset",
        "--cpu-list",
        str(core),
        *command,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        await _healthy(process, health)
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _healthy(process: asyncio.subprocess.Process, health: str) -> None:
    until_s = time.monotonic() + READY_S
    async with httpx.AsyncClient() as client:
        while time.monotonic() < until_s and process.returncode is None:
            try:
                if (await client.get(health)).is_success:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)
    raise OSError(f"a server did not start: there is no answer at {health}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
