"""`skydraft cloud`: serves a model."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from skydraft.cli.screen import Screen
from skydraft.cloud.logs import configure_logs
from skydraft.cloud.serve import bind, make_server
from skydraft.cloud.target import load_target
from skydraft.config import CloudSettings
from skydraft.edge.local_cloud import ANNOUNCEMENT

LAST_WARNING_S = 10.0  # from the end of standard input to the end by force


def run_cloud(settings: CloudSettings, num_replicas: int | None, with_stdin: bool) -> None:
    """Load the model, say where the cloud listens, serve until SIGINT or SIGTERM.

    Raises:
        TransportError: the address cannot be had.
        ConfigError: the cloud would be open to strangers.
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

        run = _run(settings, num_replicas, announce)
        loading.enter_context(screen.busy(f"Loading {settings.model} ..."))
        run()


def _run(settings: CloudSettings, num_replicas: int | None, announce: Callable[[str], None]) -> Callable[[], None]:
    """What serves until the end, its address taken."""
    if num_replicas is not None:
        from skydraft.cloud.ray.serve import RayCluster

        return RayCluster(settings, num_replicas, announce).run
    server = make_server(lambda: load_target(settings), settings, announce)
    listener = bind(settings)
    return lambda: server.run(sockets=[listener])


def _end_with_stdin() -> None:
    """End when standard input closes, so that nothing is left behind when the starting process is killed."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):  # a buffered read would hold a lock that the end of Python wants
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_WARNING_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="skydraft-stdin").start()
