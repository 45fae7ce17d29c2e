"""Runs the service: loads the model, binds the port, says where it listens."""

from __future__ import annotations

import asyncio
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


def serve(engine: Engine, settings: CloudSettings, listener: socket.socket, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

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
    asyncio.run(_serve(uvicorn.Server(config), listener, announce))


async def _serve(server: uvicorn.Server, listener: socket.socket, announce: Callable[[str], None]) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    host, port = listener.getsockname()[:2]
    announce(f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}")
    await serving
