"""Accepts connections. Each is a stranger from then on, so before TLS.

States of a connection:

    accepted   waits, and costs a file descriptor and nothing else; peers take turns, `NEW_PER_S` are let in
    let in     TLS, where there is TLS, within `STRANGER_S`
    served     has a protocol, which reads its request
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from skydraft.cloud.limits.allowance import Allowance
from skydraft.cloud.limits.strangers import STRANGER_S, Stranger, Strangers, peer_of

log = logging.getLogger("skydraft.cloud")

NEW_PER_S = 200.0  # connections let in, of all peers together; each costs 1 to 2 ms, more with TLS
ACCEPTED_PER_TURN = 32  # of the event loop
FULL_PAUSE_S = 0.2  # until accepting again, where no file descriptor is left and there is no stranger to cut off
BACKLOG = 2048


class Listener:
    """Accepts at one socket; uvicorn closes it like an `asyncio.Server`.

    Args:
        sock: bound; listens from now on.
        make_protocol: for a connection that is let in.
        new: of connections that are let in.
        tls: None: without TLS.
    """

    def __init__(
        self,
        sock: socket.socket,
        strangers: Strangers,
        make_protocol: Callable[[Stranger], asyncio.Protocol],
        new: Allowance,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._socket = sock
        self._strangers = strangers
        self._make_protocol = make_protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._new = new
        self._waiting: dict[str, dict[Stranger, socket.socket]] = {}  # by peer; the peer whose turn it is comes first
        self._next: asyncio.TimerHandle | None = None
        self._let_in: dict[asyncio.Task[None], Stranger] = {}  # without a protocol yet
        self._is_closed = False
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._resume()

    def close(self) -> None:
        """Accept no more, and end the connections without a protocol. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._socket)
        if self._next is not None:
            self._next.cancel()
        for stranger in [stranger for of_peer in self._waiting.values() for stranger in of_peer]:
            self._strangers.leave(stranger)
            self._drop(stranger)
        for stranger in self._let_in.values():
            stranger.cut()

    async def wait_closed(self) -> None:
        """As uvicorn asks: nothing is left to wait for."""

    def _resume(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_PER_TURN):
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no file descriptors, or no memory
                if not self._strangers.cut_one():
                    log.error("no connection can be accepted: this process has too many files open")
                    self._loop.remove_reader(self._socket)
                    self._loop.call_later(FULL_PAUSE_S, self._resume)
                return
            sock.setblocking(False)
            self._enter(sock, peer_of(str(address[0])))

    def _enter(self, sock: socket.socket, peer: str) -> None:
        stranger = Stranger(peer, lambda: self._drop(stranger))
        self._strangers.enter(stranger)
        self._waiting.setdefault(peer, {})[stranger] = sock
        if self._next is None:
            self._let_next_in()

    def _drop(self, stranger: Stranger) -> None:
        """End a connection that waits."""
        self._take(stranger).close()

    def _take(self, stranger: Stranger) -> socket.socket:
        of_peer = self._waiting.pop(stranger.peer)
        sock = of_peer.pop(stranger)
        if of_peer:
            self._waiting[stranger.peer] = of_peer  # behind the others
        return sock

    def _let_next_in(self) -> None:
        self._next = None
        while self._waiting:
            now_s = time.monotonic()
            if wait_s := self._new.wait_s(now_s):
                self._next = self._loop.call_later(wait_s, self._let_next_in)
                return
            self._new.use(1, now_s)
            stranger = next(iter(next(iter(self._waiting.values()))))
            sock = self._take(stranger)
            stranger.cut = partial(_shut, sock)
            task = self._loop.create_task(self._serve(stranger, sock))
            self._let_in[task] = stranger
            task.add_done_callback(self._let_in.pop)

    async def _serve(self, stranger: Stranger, sock: socket.socket) -> None:
        """Give the connection a protocol, after TLS where there is TLS."""
        has_protocol = False
        try:
            with suppress(OSError):  # it has ended, speaks no TLS, or is too slow
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await self._loop.connect_accepted_socket(
                    lambda: self._make_protocol(stranger),
                    sock,
                    ssl=self._tls,
                    ssl_handshake_timeout=STRANGER_S if self._tls else None,
                )
                has_protocol = True
        finally:
            if not has_protocol:
                self._strangers.leave(stranger)
                sock.close()


def _shut(sock: socket.socket) -> None:
    """End a connection that is about to get a transport, which will notice."""
    with suppress(OSError):  # it has ended by itself
        sock.shutdown(socket.SHUT_RDWR)
