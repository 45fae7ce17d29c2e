"""`skydraft cloud`: serves a target model."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from urllib.parse import urlsplit

from skydraft.cli.screen import Screen
from skydraft.cloud.logs import configure_logs
from skydraft.cloud.serve import bind, load_target, make_server
from skydraft.config import CloudSettings
from skydraft.edge.local_cloud import ANNOUNCEMENT

FORCED_EXIT_S = 10.0  # after the end of standard input


def run_cloud(settings: CloudSettings, num_replicas: int | None, with_stdin: bool) -> None:
    """Load the model, print the address, serve until SIGINT or SIGTERM.

    Raises:
        TransportError: the address cannot be used.
        ConfigError: other machines could connect without a key or without TLS.
        ModelLoadError: the model cannot be loaded.
    """
    configure_logs(settings.log_format, settings.log_level)
    if with_stdin:
        _end_with_stdin()
    screen = Screen()
    with ExitStack() as loading:

        def announce(address: str) -> None:
            loading.close()
            screen.text(ANNOUNCEMENT + address)
            is_read = settings.log_format == "text"  # the lines of a JSON log are JSON, each
            if is_read and not (with_stdin or settings.behind_proxy):  # what devices meet is the proxy's address
                screen.note(f"On a device: {line_for_devices(address, has_keys=bool(settings.keys))}")

        run = _run(settings, num_replicas, announce)
        loading.enter_context(screen.busy(f"Loading {settings.model} ..."))
        run()


def line_for_devices(address: str, has_keys: bool) -> str:
    """What to paste in the shell of a device, so that its commands use this cloud.

    Args:
        address: where it listens; the name of this machine stands in for one that means all of its addresses.
    """
    parts = urlsplit(address)
    if parts.hostname in ("0.0.0.0", "::"):
        parts = parts._replace(netloc=f"{socket.gethostname()}:{parts.port}")
    key = " SKYDRAFT_KEY=..." if has_keys else ""
    return f"export SKYDRAFT_CLOUD={parts.geturl()}{key}"


def _run(settings: CloudSettings, num_replicas: int | None, announce: Callable[[str], None]) -> Callable[[], None]:
    """Bind the address; returns the function that serves."""
    if num_replicas is not None:
        from skydraft.cloud.ray.serve import RayCluster

        return RayCluster(settings, num_replicas, announce).run
    server = make_server(lambda: load_target(settings), settings, announce)
    listener = bind(settings)
    return lambda: server.run(sockets=[listener])


def _end_with_stdin() -> None:
    """End when standard input closes, so that the cloud does not outlive the process that started it."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):  # a buffered read has a lock that Python needs to end
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(FORCED_EXIT_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="skydraft-stdin").start()
