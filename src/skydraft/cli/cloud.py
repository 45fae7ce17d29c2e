"""`skydraft cloud`: serves a model."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
import threading
import time

from skydraft.cli.flags import CloudFlags
from skydraft.cli.screen import Screen
from skydraft.cloud.serve import bind, make_server
from skydraft.config import CloudSettings
from skydraft.edge.local_cloud import ANNOUNCEMENT
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ConfigError

LAST_WARNING_S = 10.0  # from the end of standard input to the end by force


def run_cloud(flags: CloudFlags) -> None:
    """Load the model, say where the cloud listens, serve until SIGINT or SIGTERM.

    Raises:
        ConfigError: the address cannot be had, or is open to others without keys.
        ModelLoadError: the model cannot be loaded.
    """
    settings = flags.settings()
    require_loopback(settings.host, flags.insecure_without_keys)
    if flags.with_stdin:
        _end_with_stdin()
    screen = Screen()
    listener = bind(settings)  # before the model, which takes long: a taken port is said at once
    with screen.busy(f"Loading {settings.model} ..."):
        engine = load_engine(settings.model, "target", _engine_settings(settings))
    make_server(engine, settings, lambda address: screen.text(ANNOUNCEMENT + address)).run(sockets=[listener])


def require_loopback(host: str, is_waived: bool) -> None:
    """Refuse to serve the world.

    Raises:
        ConfigError: the host is not this machine's own loopback, and nobody said that this is meant.
    """
    if not is_waived and not _is_loopback(host):
        raise ConfigError(
            f"host {host} is open to other machines and this version knows no API keys yet, so anybody who reaches it "
            "could use the model: leave out --host, or say --insecure-without-keys where the network is your own"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: where it leads is not known here
        return False


def _engine_settings(settings: CloudSettings) -> EngineSettings:
    return EngineSettings(
        num_slots=settings.num_slots,
        max_length=settings.max_length,
        device=settings.device,
        dtype=settings.dtype,
        num_threads=settings.num_threads,
    )


def _end_with_stdin() -> None:
    """End when standard input closes, so that nothing is left behind when the starting process is killed."""

    def watch() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_WARNING_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="skydraft-stdin").start()
