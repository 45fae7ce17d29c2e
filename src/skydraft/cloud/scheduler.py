"""The thread that owns the engine and all sessions; the event loop only carries bytes to and from it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from skydraft.cloud.access.keys import Holder
from skydraft.cloud.session_registry import ConnectionId, Hub, Reply
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


_Event = _Arrived | _Connected | _Disconnected | None


class Scheduler:
    """Runs a hub in a thread of its own.

    Args:
        hub: touched by nothing else from `start` on.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
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
        return self.is_alive and self._hub.num_attended > 0

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

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            log.exception("the scheduler failed: all sessions end")
            self._send(self._hub.give_up())

    def _serve(self) -> None:
        next_expiry_s = 0.0
        while True:
            for event in self._events(wait=not self._hub.is_busy):
                if event is None:
                    return
                self._handle(event)
            if self._hub.is_busy:
                self._send(self._hub.step())
            if (now_s := time.monotonic()) >= next_expiry_s:
                self._send(self._hub.expire() + self._hub.reassure())
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

    def _handle(self, event: _Connected | _Disconnected | _Arrived) -> None:
        match event:
            case _Connected(connection, deliver, holder):
                self._deliver[connection] = deliver
                self._hub.connect(connection, holder)
            case _Disconnected(connection):
                self._deliver.pop(connection, None)
                self._num_handled.pop(connection, None)
                self._hub.disconnect(connection)
            case _Arrived(connection, message):
                self._send(self._hub.receive(connection, message))
                self._num_handled[connection] = self._num_handled.get(connection, 0) + 1

    def _send(self, replies: list[Reply]) -> None:
        for connection, message in replies:
            deliver = self._deliver.get(connection)
            if deliver is not None:
                deliver(message)
