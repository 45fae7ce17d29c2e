"""One device's connection: carries messages between its WebSocket and the scheduler, and ends it in good order.

    state      what happens in it                         what ends it
    waiting    nothing whole has come yet                 a message -> open; `open_s` pass -> closing, 1008
    open       messages pass in both directions           `idle_s` without a message -> closing, 1008
    closing    the device is told why, then the close     `GOODBYE_S` for each -> ended
    ended      the scheduler knows it no more             after `ABORT_S` the socket is closed by force

In `waiting` and `open` also: the device leaves -> ended. It breaks the protocol or speaks another version of it -> a
`Fault`, then closing, 1002. The scheduler has failed -> a `Fault`, then closing, 1011. `dismiss` (the key is gone, the
device does not read) -> closing, 1008.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect

from skydraft.cloud.access.keys import Holder
from skydraft.cloud.limits.uvicorn_limits import ABORT
from skydraft.cloud.metrics import Metrics
from skydraft.cloud.scheduler import Scheduler
from skydraft.config import CloudSettings
from skydraft.errors import CloudFault, RemoteProtocolError, VersionMismatch
from skydraft.protocol import codec, messages, padding
from skydraft.protocol.limits import FrameLimits
from skydraft.protocol.messages import FaultCode

log = logging.getLogger("skydraft.cloud")

MAX_UNHANDLED = 16  # messages of a device that the scheduler has not handled: beyond them its socket is not read
UNHANDLED_PAUSE_S = 0.005
MAX_OUTBOX = 1024  # messages that a device has not read yet, before it is dismissed
NOT_READ = f"{MAX_OUTBOX} messages to it were not read"
GOODBYE_S = 1.0  # to say why a connection is closed
ABORT_S = 5.0  # from there to its end by force
CLOSE_PROTOCOL_ERROR = 1002
CLOSE_POLICY = 1008
CLOSE_FAILED = 1011


class DeviceConnection:
    """One device.

    Args:
        number: of the connection, for scheduler and logs.
        holder: whose key it came with.
        wants_prompt_read: it takes `messages.PromptRead`.
    """

    def __init__(
        self,
        number: int,
        socket: WebSocket,
        holder: Holder,
        scheduler: Scheduler,
        settings: CloudSettings,
        metrics: Metrics,
        wants_prompt_read: bool = False,
    ) -> None:
        self.holder = holder
        self._wants_prompt_read = wants_prompt_read
        self._number = number
        self._socket = socket
        self._scheduler = scheduler
        self._settings = settings
        self._metrics = metrics
        self._limits = FrameLimits(
            max_frame_bytes=settings.max_frame_bytes,
            max_prompt_tokens=settings.max_prompt_tokens,
            max_tensor_bytes=settings.max_tensor_bytes,
            max_draft_tokens=settings.max_draft_tokens,
        )
        # What ends the connection by force; under a server of others it ends with the call.
        self._abort: Callable[[], None] = socket.scope.get("state", {}).get(ABORT, lambda: None)
        self._loop = asyncio.get_running_loop()
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(MAX_OUTBOX)
        self._unpacked: deque[bytes] | None = None  # of a device that pads: messages that wait for its next frame
        self._has_heard = False
        self._num_submitted = 0
        self._patience = asyncio.timeout(settings.open_s)
        self._why_closed = f"no session was asked for within {settings.open_s:g} s"
        self._is_dismissed = False

    async def serve(self) -> None:
        """Until the device leaves, breaks the protocol or is sent away."""
        self._scheduler.connect(self._number, self._deliver, self.holder, self._wants_prompt_read)
        sender = asyncio.create_task(self._send())
        try:
            async with self._patience:
                await self._receive()
        except TimeoutError:
            await self._say_goodbye(CLOSE_POLICY, self._why_closed)
        except WebSocketDisconnect:
            pass
        except VersionMismatch as error:
            await self._refuse(FaultCode.VERSION, str(error), CLOSE_PROTOCOL_ERROR)
        except RemoteProtocolError as error:
            await self._refuse(FaultCode.PROTOCOL, str(error), CLOSE_PROTOCOL_ERROR)
        except CloudFault as fault:
            await self._refuse(FaultCode(fault.code), fault.sentence, CLOSE_FAILED)
        finally:
            self._scheduler.disconnect(self._number)
            sender.cancel()
            self._loop.call_later(ABORT_S, self._abort)

    # From the device

    async def _receive(self) -> None:
        while True:
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                return
            frame = event.get("bytes")
            if frame is None:
                raise RemoteProtocolError("a text frame came and the protocol is made of binary frames")
            if not self._has_heard:  # the first frame says whether this device pads
                self._has_heard = True
                self._unpacked = deque() if padding.is_padded(frame) else None
            for data in (frame,) if self._unpacked is None else padding.unpack(frame):
                message = codec.decode_edge_message(data, self._limits)
                self._note_life()
                if isinstance(message, messages.Open) and message.sampling.grammar is not None:
                    await asyncio.to_thread(self._scheduler.prepare, message)
                self._scheduler.submit(self._number, message)
                self._num_submitted += 1
                # Polled, because a signal for each message would cost every round what only a flood needs.
                while self._num_submitted - self._scheduler.num_handled(self._number) > MAX_UNHANDLED:  # noqa: ASYNC110
                    await asyncio.sleep(UNHANDLED_PAUSE_S)
            if self._unpacked is not None:
                self._put(padding.pack(self._unpacked))
                await asyncio.sleep(0)  # a device that sends nothing but covers gives others their turn too

    # To the device

    def _deliver(self, message: messages.CloudMessage) -> None:
        """Called in the scheduler's thread."""
        with suppress(RuntimeError):  # the event loop has ended before the scheduler
            self._loop.call_soon_threadsafe(self._post, message)

    def _post(self, message: messages.CloudMessage) -> None:
        data = codec.encode(message)
        if self._unpacked is None:
            self._put(data)
        elif len(self._unpacked) < MAX_OUTBOX:
            self._unpacked.append(data)
            self._note_life()  # here and not where frames are sent: covers are no sign of life
        else:
            self.dismiss(NOT_READ)

    def _put(self, frame: bytes) -> None:
        try:
            self._outbox.put_nowait(frame)
        except asyncio.QueueFull:
            self.dismiss(NOT_READ)

    async def _send(self) -> None:
        stall_s = self._settings.stall_s
        with suppress(WebSocketDisconnect, RuntimeError):  # Starlette raises RuntimeError on a socket closed meanwhile
            while True:
                frame = await self._outbox.get()
                try:
                    async with asyncio.timeout(stall_s):
                        await self._socket.send_bytes(frame)
                except TimeoutError:
                    self.dismiss(f"a message to it was not taken within {stall_s:g} s")
                    return
                if self._unpacked is None:
                    self._note_life()

    # Its end

    def dismiss(self, why: str) -> None:
        """Close the connection. why: for a person at the device, 120 bytes at most."""
        if not self._is_dismissed:
            self._is_dismissed, self._why_closed = True, why
            with suppress(RuntimeError):  # it has ended already, or not begun
                self._patience.reschedule(self._loop.time())

    def _note_life(self) -> None:
        """A whole message has passed: the idle time begins again."""
        if not self._is_dismissed:
            idle_s = self._settings.idle_s
            self._why_closed = f"nothing passed over it for {idle_s:g} s"
            with suppress(RuntimeError):
                self._patience.reschedule(self._loop.time() + idle_s)

    async def _refuse(self, code: FaultCode, sentence: str, close_code: int) -> None:
        self._metrics.refused(code)
        log.warning("a connection was refused", extra={"facts": {"connection": self._number, "code": code.value}})
        data = codec.encode(messages.Fault(code, sentence))
        if self._unpacked is not None:
            data = padding.pack(deque([data]))
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._socket.send_bytes(data)
        await self._say_goodbye(close_code)

    async def _say_goodbye(self, code: int, why: str | None = None) -> None:
        if why is not None:
            log.warning("a connection was closed: %s", why, extra={"facts": {"connection": self._number}})
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._socket.close(code, why)
