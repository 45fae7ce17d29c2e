"""What a device meets: a cloud, the naive baseline's server, and a link in front of each; processes of their own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass

import msgspec

from bench.claims import pin
from bench.network.naive import ANNOUNCEMENT
from bench.network.profiles import Profile
from bench.network.rows import Lateness
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.cloud_http import inquire
from skydraft.edge.local_cloud import local_cloud
from skydraft.engines.emulated.paced import PaceCounts
from skydraft.errors import TransportError
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings

DEVICE_CORE, CLOUD_CORE = 0, 1
START_S = 120.0
SETTLE_S = 0.1  # until a link has read its new settings

_LINK_WORDS = "link listens on "


class _Health(msgspec.Struct):
    pace: PaceCounts


@dataclass(frozen=True)
class Server:
    """direct: its own address. linked: of the link in front of it."""

    direct: Address
    linked: Address
    link: asyncio.subprocess.Process

    async def lateness(self) -> Lateness:
        """Of its model so far; asked past the link."""
        address = CloudAddress(f"ws://{self.direct}")
        return Lateness.of((await inquire(address, "/healthz", _Health)).pace)

    def apply(self, settings: LinkSettings) -> None:
        assert self.link.stdin is not None
        self.link.stdin.write(msgspec.json.encode(settings) + b"\n")


@dataclass(frozen=True)
class Site:
    cloud: Server
    naive: Server

    async def set_link(self, round_trip_ms: float, rate_mbps: float) -> None:
        path = PathSettings(delay_ms=round_trip_ms / 2, rate_mbps=rate_mbps)
        for server in (self.cloud, self.naive):
            server.apply(LinkSettings(up=path, down=path))
        await asyncio.sleep(SETTLE_S)


@asynccontextmanager
async def open_site(profile: Profile, is_pinned: bool) -> AsyncIterator[Site]:
    """Start what a profile needs.

    Args:
        is_pinned: this process and the links have a core, and the clouds another.
    Raises:
        TransportError: one did not start.
    """
    if is_pinned:
        pin(CLOUD_CORE)  # children inherit it
    async with (
        local_cloud(profile.target, "--threads", "1", "--log-level", "error", "--prefix-cache", "0") as url,
        _process("bench.network.naive", "--model", profile.target) as naive,
    ):
        cloud_address, naive_address = Address.parse(url.removeprefix("ws://")), await _announced(naive, ANNOUNCEMENT)
        if is_pinned:
            pin(DEVICE_CORE)
        async with _link(cloud_address) as cloud_link, _link(naive_address) as naive_link:
            yield Site(
                Server(cloud_address, await _announced(cloud_link, _LINK_WORDS), cloud_link),
                Server(naive_address, await _announced(naive_link, _LINK_WORDS), naive_link),
            )


def _link(upstream: Address) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    return _process("skydraft.transport.link.link", "--upstream", str(upstream), "--control")


@asynccontextmanager
async def _process(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _announced(process: asyncio.subprocess.Process, words: str) -> Address:
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), START_S)).decode()
    except TimeoutError:
        raise TransportError(f"a process of the bench said nothing for {START_S:g} s") from None
    if not line.startswith(words):
        raise TransportError("a process of the bench did not start; its own words are above")
    return Address.parse(line.removeprefix(words).strip())
