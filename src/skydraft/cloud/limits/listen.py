"""Listens for a server, with the bounds on what a connection may cost."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence

from skydraft.cloud.limits.allowance import Allowance
from skydraft.cloud.limits.listener import NEW_PER_S, Listener
from skydraft.cloud.limits.sliced_stream import MAX_REQUEST_BYTES, SlicedStream, UnfinishedMessages
from skydraft.cloud.limits.strangers import Stranger, Strangers

SPARE_CONNECTIONS = 32  # connections that have not come in, beyond `max_connections`: for health and metrics


def listen(
    sockets: Sequence[socket.socket],
    tls: ssl.SSLContext | None,
    max_connections: int,
    max_message_bytes: int,
    make_protocol: Callable[[], asyncio.Protocol],
    max_request_bytes: int = MAX_REQUEST_BYTES,
) -> list[Listener]:
    """Accept connections at sockets that are bound.

    Args:
        tls: None: without TLS.
        make_protocol: of a connection that is let in.
        max_message_bytes, max_request_bytes: as `UnfinishedMessages` and `SlicedStream` have them.
    """
    num_places = max_connections + SPARE_CONNECTIONS
    strangers, new = Strangers(num_places), Allowance(NEW_PER_S, num_places)
    key_times, unfinished = dict[str, Allowance](), UnfinishedMessages(max_message_bytes)

    def make_stream(stranger: Stranger) -> SlicedStream:
        return SlicedStream(make_protocol(), stranger, strangers, key_times, unfinished, max_request_bytes)

    return [Listener(sock, strangers, make_stream, new, tls) for sock in sockets]
