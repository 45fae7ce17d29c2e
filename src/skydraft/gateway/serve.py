"""Runs a gateway under uvicorn, with the bounds of a cloud on what a connection can cost."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import FrameType

import uvicorn
from uvicorn.config import Config

from skydraft.client.async_client import AsyncClient
from skydraft.cloud.access.guard import certificate_of, keys_of, require_guards
from skydraft.cloud.limits.listen import listen
from skydraft.cloud.logs import flush_logs
from skydraft.config import GatewaySettings
from skydraft.gateway.app import make_app
from skydraft.gateway.distances import distances_of
from skydraft.gateway.gateway import Gateway
from skydraft.gateway.gateway_http import GatewayHttp

CLOSING_S = 5  # for what is under way, before connections are ended by force
TICKS_PER_REFRESH = 10  # uvicorn ticks ten times a second
UNREAD_BYTES = 2**20  # of a request whose key is not known yet: it may arrive with its head


class GatewayServer(uvicorn.Server):
    """Announces the gateway when it takes requests; SIGTERM lets texts end before it ends."""

    def __init__(
        self,
        gateway: Gateway,
        announce: Callable[[str], None],
        lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None,
    ) -> None:
        require_guards(gateway.settings)
        self.gateway = gateway
        self._announce = announce
        self._certificate = certificate_of(gateway.settings)
        self._drains_until_s: float | None = None
        config = Config(
            make_app(gateway, lifespan),
            http=GatewayHttp,
            ws="none",
            proxy_headers=False,
            server_header=False,
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=CLOSING_S,
        )
        config.load()
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, as `cloud.serve.Server` does."""
        await super().startup(sockets=[])
        settings = self.gateway.settings

        def make_protocol() -> GatewayHttp:
            return GatewayHttp(self.config, self.server_state, self.lifespan.state)

        tls, most = self._certificate.context if self._certificate else None, settings.max_body_bytes
        listeners = listen(sockets or [], tls, settings.max_connections, most, make_protocol, UNREAD_BYTES)
        self.servers.extend(listeners)  # type: ignore[arg-type]  # of which uvicorn asks close and wait_closed
        for sock in sockets or []:
            self._announce(url_of(settings, *sock.getsockname()[:2]))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        requests = set(self.server_state.tasks)  # which a second signal does not wait for: their device is about to go
        for request in requests:
            if not request.cancelling():
                request.cancel()
        if requests:
            await asyncio.wait(requests, timeout=CLOSING_S)
        if self.force_exit:  # which uvicorn then leaves to whoever cancels it, with a traceback
            await self.lifespan.shutdown()
        flush_logs()

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_PER_REFRESH == 0:
            self.gateway.guard.reload()
            self.gateway.kept_responses.forget_old(time.monotonic())
            if self._certificate is not None:
                self._certificate.refresh()
        self.should_exit = self.should_exit or self._is_drained
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and not self.gateway.is_draining:
            self._captured_signals.append(sig)
            self.gateway.is_draining = True
            self._drains_until_s = time.monotonic() + self.gateway.settings.drain_s
        else:
            super().handle_exit(sig, frame)

    @property
    def _is_drained(self) -> bool:
        if self._drains_until_s is None:
            return False
        return not self.gateway.num_present or time.monotonic() >= self._drains_until_s


async def serve(
    settings: GatewaySettings, client: AsyncClient, model: str, sock: socket.socket, announce: Callable[[str], None]
) -> None:
    """Serve apps with a client that is ready, until SIGINT or SIGTERM.

    Args:
        model: what the answers call it.
        sock: bound.
        announce: told the address once apps may come.
    Raises:
        ConfigError: the settings would leave the gateway open, or the files of keys or TLS are wrong, or no link can be
            emulated.
    """
    async with distances_of(settings, client.settings.cloud) as distances:
        gateway = Gateway(settings, client, model, keys_of(settings), distances)
        await GatewayServer(gateway, announce).serve(sockets=[sock])


def url_of(settings: GatewaySettings, host: str, port: int) -> str:
    """The address for apps: what they call the base URL."""
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://[{host}]:{port}/v1" if ":" in host else f"{scheme}://{host}:{port}/v1"
