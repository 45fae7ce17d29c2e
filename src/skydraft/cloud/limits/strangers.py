"""Bounds the connections that have not come in yet: before and during TLS, a request, a WebSocket's handshake.

Such a connection, a stranger, is cheap and gives its key only at the end of the handshake. So there may be many; each
has to come in within a time; and where their number is reached, the peer that has most strangers loses its oldest. A
flood from one peer thus cuts off its own connections, and where all peers look alike, as behind a proxy, those that are
quick come in.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable

log = logging.getLogger("skydraft.cloud")

STRANGER_S = 30.0  # from being accepted to having come in, with TLS
IPV6_PREFIX = 64  # bits of a peer's address: one peer can use all addresses with the same prefix


def peer_of(host: str) -> str:
    """The peer that an address belongs to: an IPv4 address, or the network that an IPv6 address is in."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


class Stranger:
    """A connection that has not come in. cut: ends it; replaced as the connection gets further."""

    def __init__(self, peer: str, cut: Callable[[], None]) -> None:
        self.peer = peer
        self.cut = cut
        self.end: asyncio.TimerHandle | None = None


class Strangers:
    """All strangers of a cloud.

    Args:
        num_places: how many there may be.
    """

    def __init__(self, num_places: int) -> None:
        self._num_places = num_places
        self._by_peer: dict[str, dict[Stranger, None]] = {}  # in the order in which they came
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def __contains__(self, stranger: Stranger) -> bool:
        return stranger in self._by_peer.get(stranger.peer, ())

    def enter(self, stranger: Stranger) -> None:
        """Give it a place for STRANGER_S at most; where all places are taken, another stranger loses its own."""
        if self._num >= self._num_places:
            self.cut_one()
        self._by_peer.setdefault(stranger.peer, {})[stranger] = None
        self._num += 1
        stranger.end = asyncio.get_running_loop().call_later(STRANGER_S, self._cut, stranger)

    def leave(self, stranger: Stranger) -> None:
        """It has come in, or is gone. May be called twice."""
        if stranger in self:
            of_peer = self._by_peer[stranger.peer]
            del of_peer[stranger]
            if not of_peer:
                del self._by_peer[stranger.peer]
            self._num -= 1
        if stranger.end is not None:
            stranger.end.cancel()

    def cut_one(self) -> bool:
        """End the oldest stranger of the peer that has most; returns whether there was one."""
        if not self._by_peer:
            return False
        of_peer = max(self._by_peer.values(), key=len)
        log.warning("a connection was cut off before it came in: too many have not come in yet")
        self._cut(next(iter(of_peer)))
        return True

    def _cut(self, stranger: Stranger) -> None:
        self.leave(stranger)
        stranger.cut()
