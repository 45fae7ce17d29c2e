"""Runs the service: loads the model, binds the port, says where it listens."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from skydraft.cloud.app import make_app
from skydraft.config import CloudSettings
from skydraft.engines.base import Engine
from skydraft.errors import ConfigError


def bind(settings: CloudSettings) -> socket.socket:
    """Take the port; port 0 takes a free one.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"the cloud cannot listen on {settings.host} port {settings.port}: {error.strerror or error}; "
            "choose another with --host and --port (0 takes a free port)"
        ) from error
    return listener


def make_server(engine: Engine, settings: CloudSettings, announce: Callable[[str], None]) -> uvicorn.Server:
    """The service, ready to `run(sockets=[listener])` until SIGINT, SIGTERM or `should_exit`.

    Args:
        announce: told the address once connections are taken.
    """
    config = uvicorn.Config(
        make_app(engine, settings),
        ws_max_size=settings.max_frame_bytes,
        ws_per_message_deflate=False,  # ids do not compress, and it takes time
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    return _Server(config, announce)


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[str], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            self._announce(f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}")
