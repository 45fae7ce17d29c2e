"""The thread that owns the engine and all sessions; the event loop only carries bytes to and from it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from skydraft.cloud.access.keys import Holder
from skydraft.cloud.session_registry import ConnectionId, Reply, SessionRegistry
from skydraft.protocol import messages

log = logging.getLogger("skydraft.cloud")

EXPIRY_PERIOD_S = 1.0

Deliver = Callable[[messages.CloudMessage], None]


@dataclass(frozen=True)
class _Arrived:
    connection: ConnectionId
    message: messages.EdgeMessage


@dataclass(frozen=True)
class _Connected:
    connection: ConnectionId
    deliver: Deliver
    holder: Holder


@dataclass(frozen=True)
class _Disconnected:
    connection: ConnectionId


@dataclass(frozen=True)
class _DrainBegun:
    pass


_Event = _Arrived | _Connected | _Disconnected | _DrainBegun | None


class Scheduler:
    """Runs the session registry in a thread of its own.

    Args:
        registry: touched by nothing else from `start` on.
    """

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._inbox: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._deliver: dict[ConnectionId, Deliver] = {}
        self._num_handled: dict[ConnectionId, int] = {}
        self._thread = threading.Thread(target=self._run, name="skydraft-scheduler", daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def has_texts(self) -> bool:
        """Whether a device is there whose session is open."""
        return self.is_alive and self._registry.num_attended > 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the forward pass under way and end."""
        self._inbox.put(None)
        self._thread.join()

    def connect(self, connection: ConnectionId, deliver: Deliver, holder: Holder) -> None:
        """From now on, call `deliver`, in the scheduler's thread, with what this connection is to be sent.

        Args:
            holder: whose key it came with.
        """
        self._inbox.put(_Connected(connection, deliver, holder))

    def submit(self, connection: ConnectionId, message: messages.EdgeMessage) -> None:
        self._inbox.put(_Arrived(connection, message))

    def num_handled(self, connection: ConnectionId) -> int:
        """How many messages of a connection have been handled, so that its reader does not run ahead."""
        return self._num_handled.get(connection, 0)

    def disconnect(self, connection: ConnectionId) -> None:
        self._inbox.put(_Disconnected(connection))

    def begin_drain(self) -> None:
        """Refuse new texts from now on. Safe in a signal handler, and more than once."""
        self._inbox.put(_DrainBegun())

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            log.exception("the scheduler failed: all sessions end")
            self._send(self._registry.fail_all())

    def _serve(self) -> None:
        next_expiry_s = 0.0
        while True:
            for event in self._events(wait=not self._registry.is_busy):
                if event is None:
                    return
                self._handle(event)
            if self._registry.is_busy:
                self._send(self._registry.step())
            if (now_s := time.monotonic()) >= next_expiry_s:
                self._send(self._registry.expire() + self._registry.reassure())
                next_expiry_s = now_s + EXPIRY_PERIOD_S

    def _events(self, wait: bool) -> list[_Event]:
        """All that has arrived; waits for the first where there is nothing else to do."""
        events = []
        try:
            if wait:
                events.append(self._inbox.get(timeout=EXPIRY_PERIOD_S))
            while True:
                events.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return events

    def _handle(self, event: _Connected | _Disconnected | _Arrived | _DrainBegun) -> None:
        match event:
            case _Connected(connection, deliver, holder):
                self._deliver[connection] = deliver
                self._registry.connect(connection, holder)
            case _Disconnected(connection):
                self._deliver.pop(connection, None)
                self._num_handled.pop(connection, None)
                self._registry.disconnect(connection)
            case _DrainBegun():
                self._registry.begin_drain()
            case _Arrived(connection, message):
                self._send(self._registry.receive(connection, message))
                self._num_handled[connection] = self._num_handled.get(connection, 0) + 1

    def _send(self, replies: list[Reply]) -> None:
        for connection, message in replies:
            deliver = self._deliver.get(connection)
            if deliver is not None:
                deliver(message)
