"""The thread that owns the engine and all sessions; the event loop only carries bytes to and from it.

What goes into a forward pass it does not decide: that is `scheduling/batcher`. Its states:

    state      what happens in it
    new        connections may be announced and messages submitted; they wait
    running    round by round: handle all that has arrived, run one forward pass if a session waits for one, and once a
               second forget sessions and reassure devices; without work it waits for the next message
    stopped    after `stop`, when the pass under way has ended
    failed     after an exception: every connection has been told `Fault` `internal`, and nothing is taken any more
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from skydraft.cloud.access.keys import Holder
from skydraft.cloud.session_registry import ConnectionId, Reply, SessionRegistry
from skydraft.errors import CloudFault
from skydraft.protocol import messages
from skydraft.protocol.messages import FaultCode

log = logging.getLogger("skydraft.cloud")

EXPIRY_PERIOD_S = 1.0

Deliver = Callable[[messages.CloudMessage], None]
Call = Callable[[], None]


class Scheduler:
    """Runs the session registry in a thread of its own. Any thread may call its methods.

    Args:
        registry: touched by nothing else from `start` on.
    """

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._inbox: queue.SimpleQueue[Call | None] = queue.SimpleQueue()  # for the thread to call; None: stop
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

    def begin_drain(self) -> None:
        """Refuse new texts from now on. Safe in a signal handler, and more than once."""
        self._inbox.put(self._registry.begin_drain)

    def connect(
        self, connection: ConnectionId, deliver: Deliver, holder: Holder, wants_prompt_read: bool = False
    ) -> None:
        """From now on, call `deliver`, in the scheduler's thread, with each message to this connection.

        Args:
            holder: whose key it came with.
            wants_prompt_read: as `SessionRegistry.connect`.
        """
        self._inbox.put(partial(self._connect, connection, deliver, holder, wants_prompt_read))

    def prepare(self, message: messages.Open) -> None:
        """In any thread, before it is submitted: what would hold up others in the scheduler's."""
        self._registry.prepare(message)

    def submit(self, connection: ConnectionId, message: messages.EdgeMessage) -> None:
        """Have a message handled.

        Raises:
            CloudFault: the scheduler has failed or was stopped.
        """
        if not self._thread.is_alive():
            raise CloudFault(FaultCode.INTERNAL, "the cloud has failed and ends; its log says why")
        self._inbox.put(partial(self._handle, connection, message))

    def num_handled(self, connection: ConnectionId) -> int:
        """How many messages of a connection have been handled, so that its reader does not run ahead."""
        return self._num_handled.get(connection, 0)

    def disconnect(self, connection: ConnectionId) -> None:
        """The connection has ended: send nothing to it any more."""
        self._inbox.put(partial(self._disconnect, connection))

    # In the thread

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            log.exception("the scheduler failed: all sessions end")
            self._send(self._registry.fail_all())

    def _serve(self) -> None:
        next_expiry_s = 0.0
        while True:
            with suppress(queue.Empty):  # all that has arrived, and where there is nothing else to do, the next
                call = self._inbox.get(block=not self._registry.is_busy, timeout=EXPIRY_PERIOD_S)
                while call is not None:
                    call()
                    call = self._inbox.get_nowait()
                return
            if self._registry.is_busy:
                self._send(self._registry.step())
            if (now_s := time.monotonic()) >= next_expiry_s:
                self._send(self._registry.expire() + self._registry.reassure())
                next_expiry_s = now_s + EXPIRY_PERIOD_S

    def _connect(self, connection: ConnectionId, deliver: Deliver, holder: Holder, wants_prompt_read: bool) -> None:
        self._deliver[connection] = deliver
        self._registry.connect(connection, holder, wants_prompt_read)

    def _handle(self, connection: ConnectionId, message: messages.EdgeMessage) -> None:
        self._send(self._registry.receive(connection, message))
        self._num_handled[connection] = self._num_handled.get(connection, 0) + 1

    def _disconnect(self, connection: ConnectionId) -> None:
        self._deliver.pop(connection, None)
        self._num_handled.pop(connection, None)
        self._registry.disconnect(connection)

    def _send(self, replies: list[Reply]) -> None:
        for connection, message in replies:
            deliver = self._deliver.get(connection)
            if deliver is not None:
                deliver(message)
