"""A cloud from the loading of its model to its end: what the endpoints share and ask.

Its states:

    state      begins when                                            sessions
    loading    the process starts                                     refused: HTTP 503
    ready      the model is loaded                                    taken
    draining   `begin_drain`, in any state but failed (SIGTERM)       open ones go on; new ones: `Fault` `busy`
    failed     the model cannot be loaded, or the scheduler failed    refused: HTTP 503
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import NamedTuple

from skydraft.cloud.access.guard import Guard
from skydraft.cloud.connection import DeviceConnection
from skydraft.cloud.metrics import Metrics
from skydraft.cloud.scheduler import Scheduler
from skydraft.cloud.session_registry import SessionRegistry
from skydraft.config import CloudSettings
from skydraft.core import PassTimes
from skydraft.engines.base import Engine
from skydraft.engines.load import load_tokenizer
from skydraft.engines.time_passes import time_passes
from skydraft.errors import ModelLoadError
from skydraft.text.token_reader import TokenReader

log = logging.getLogger("skydraft.cloud")


class ServiceState(StrEnum):
    """The states of a cloud."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class _Loaded(NamedTuple):
    engine: Engine
    pass_times: PassTimes | None
    reader: TokenReader | None


class Service:
    """The engine, the scheduler and the connections of a cloud.

    For the event loop's thread, but for `begin_drain`.

    connections: of the devices that are connected now.
    failure: why the model could not be loaded.
    """

    def __init__(self, settings: CloudSettings, guard: Guard, metrics: Metrics) -> None:
        self.settings = settings
        self.guard = guard
        self.metrics = metrics
        self.connections: set[DeviceConnection] = set()
        self.engine: Engine | None = None
        self.scheduler: Scheduler | None = None
        self.failure: Exception | None = None
        self._drains_until_s: float | None = None

    @property
    def state(self) -> ServiceState:
        if self.failure is not None or (self.scheduler is not None and not self.scheduler.is_alive):
            return ServiceState.FAILED
        if self.is_draining:
            return ServiceState.DRAINING
        return ServiceState.LOADING if self.scheduler is None else ServiceState.READY

    def load(self, load: Callable[[], Engine], on_end: Callable[[], None]) -> None:
        """Load the engine in a thread, so that the process can end meanwhile, and start to serve.

        Args:
            on_end: called in the event loop when the model is loaded, or when `failure` says why it is not.
        """
        loop = asyncio.get_running_loop()

        def work() -> None:
            result: _Loaded | Exception
            try:
                engine = load()
                result = _Loaded(engine, time_passes(engine), _make_reader(self.settings.model, engine))
            except Exception as error:
                result = error
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(finish, result)

        def finish(result: _Loaded | Exception) -> None:
            if isinstance(result, Exception):
                self.failure = result
            else:
                self._serve(result)
            on_end()

        threading.Thread(target=work, daemon=True, name="skydraft-load").start()

    def stop(self) -> None:
        """Finish the forward pass under way and end."""
        if self.scheduler is not None:
            self.scheduler.stop()
        self.metrics.shutdown()

    def begin_drain(self) -> None:
        """Refuse new texts; those under way may end within `drain_s`. Safe in a signal handler."""
        self._drains_until_s = time.monotonic() + self.settings.drain_s
        if self.scheduler is not None:
            self.scheduler.begin_drain()

    @property
    def is_draining(self) -> bool:
        return self._drains_until_s is not None

    @property
    def is_drained(self) -> bool:
        """Whether draining has begun and come to its end."""
        if self._drains_until_s is None:
            return False
        is_idle = self.scheduler is None or not self.scheduler.has_texts
        return is_idle or time.monotonic() >= self._drains_until_s

    def refresh_keys(self) -> None:
        """Read the keys again if their file has changed, and close the connections whose keys are gone."""
        if self.guard.reload():
            for connection in self.connections:
                if not self.guard.is_still_good(connection.holder):
                    connection.dismiss("its API key is no longer good")

    def _serve(self, loaded: _Loaded) -> None:
        self.engine = engine = loaded.engine
        registry = SessionRegistry(
            engine, self.settings, self.metrics, pass_times=loaded.pass_times, reader=loaded.reader
        )
        self.scheduler = Scheduler(registry)
        self.scheduler.start()
        if self.is_draining:  # asked for while the model was being loaded
            self.scheduler.begin_drain()
        log.info("model loaded", extra={"facts": {"model": engine.name, "num_slots": engine.limits.num_slots}})


def _make_reader(model: str, engine: Engine) -> TokenReader | None:
    """What reads an engine's ids as text; None where only a server can."""
    try:
        tokenizer = load_tokenizer(model, "target")
    except ModelLoadError:
        return None
    ours, theirs = tokenizer.vocabulary, engine.vocabulary
    if ours.num_tokens != theirs.num_tokens or ours.digest() != theirs.digest():
        return None
    reader = TokenReader(tokenizer)
    reader.warm_up()
    return reader
