"""A cloud at several distances, so that one sees what a round trip costs and what drafting hides of it.

For each distance there is an emulated link on this machine, and a request chooses by which of them its text is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from urllib.parse import urlsplit

from skydraft.config import GatewaySettings
from skydraft.errors import ConfigError
from skydraft.transport.address import session_url
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings

Distances = Mapping[int, str]  # the cloud's address by the round trip that is added, in ms; 0: its own
NO_DISTANCES: Distances = MappingProxyType({})
ROUND_TRIPS_MS = (20, 50, 100, 200)


@asynccontextmanager
async def distances_of(settings: GatewaySettings, cloud: str | None) -> AsyncIterator[Distances]:
    """Links to a cloud, for as long as the context lasts; none where the settings do not want them.

    Raises:
        ConfigError: there is no cloud, or one with TLS: its certificate is not for a link's address.
    """
    if not settings.emulate_link:
        yield NO_DISTANCES
        return
    if cloud is None:
        raise ConfigError("there is no cloud to emulate a distance to: leave --emulate-link out, or use mode hybrid")
    url = urlsplit(session_url(cloud))
    if url.scheme != "ws":
        raise ConfigError(
            f"a link cannot be emulated to {cloud}, whose certificate is for its own name: --emulate-link needs a "
            "cloud without TLS, such as one on this machine"
        )
    upstream = Address(url.hostname or "", url.port or 80)
    async with AsyncExitStack() as stack:
        distances = {0: cloud}
        for round_trip_ms in ROUND_TRIPS_MS:
            path = PathSettings(delay_ms=round_trip_ms / 2)
            link = await stack.enter_async_context(Link(upstream, LinkSettings(up=path, down=path)))
            distances[round_trip_ms] = url._replace(netloc=str(link.address)).geturl()
        yield distances
