"""How long the device waits for a cloud: for one that owes an answer, and for one that is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

from skydraft.config import DeviceSettings, Offline
from skydraft.decoding.edge_session import EdgeSession, Phase
from skydraft.errors import TransportError
from skydraft.protocol import messages

TUNNEL_OPENING_S = 2.0


class Patience(NamedTuple):
    """When a cloud is lost, though its connection stands, and what to do about it.

    offline: "wait" takes the session up again; otherwise the caller handles the loss.
    wait_s: how long "wait" tries.
    silence_s: a cloud is lost that has neither written nor said that it works on it for so long.
    standstill_s: one is lost that has written nothing for so long, whatever it says.
    opening_s: the same before it has written over a connection, for it may read a long prompt; None: silence_s.
    """

    offline: Offline
    wait_s: float
    silence_s: float = 120.0
    standstill_s: float = 1800.0
    opening_s: float | None = None

    @classmethod
    def of(cls, settings: DeviceSettings) -> Patience:
        """What a user's settings ask for."""
        if settings.offline != "tunnel":
            return cls(settings.offline, settings.offline_wait_s)
        return cls(
            "tunnel", 0.0, silence_s=settings.tunnel_wait_s, opening_s=max(TUNNEL_OPENING_S, settings.tunnel_wait_s)
        )

    @property
    def writes_on(self) -> bool:
        """Whether the device writes on by itself when the cloud is lost."""
        return self.offline in ("edge", "tunnel")


class AnswerTime:
    """What is left of the time of a cloud with one text.

    That something arrives does not count, but that it brings the text on: a cloud can send tokens that the device
    knows for ever.

    Args:
        url: of the cloud, for error messages.
    """

    def __init__(self, session: EdgeSession, url: str, patience: Patience) -> None:
        self._session = session
        self._url = url
        self._patience = patience
        self._sign_s = self._progress_s = time.monotonic()
        self._is_owing = False  # the cloud, since before what is sent now
        self._is_under_way = False  # it has written over this connection
        self._waiting = asyncio.timeout(None)

    def asked(self) -> None:
        """Something was sent: to a cloud that owes something already it gives no more time."""
        is_opening = self._session.phase is Phase.OPENING
        self._is_under_way &= not is_opening
        if self._is_owing and self._session.is_owed and not is_opening:
            return
        self._is_owing = self._session.is_owed
        self._sign_s = self._progress_s = time.monotonic()
        with suppress(RuntimeError):  # `wait` is not running
            left_s = self._left_s
            self._waiting.reschedule(None if left_s is None else asyncio.get_running_loop().time() + left_s)

    async def wait(self, receive: Callable[[], Awaitable[bytes]]) -> bytes:
        """Wait for what comes next, for as long as there is time; without end while the cloud owes nothing.

        Raises:
            TransportError: the time is over; and what `receive` raises.
        """
        self._waiting = asyncio.timeout(self._left_s)
        try:
            if (left_s := self._left_s) is not None and left_s <= 0:
                raise TimeoutError  # looked at here too: what has arrived already is not waited for
            async with self._waiting:
                return await receive()
        except TimeoutError as error:
            raise TransportError(f"the cloud at {self._url} {self._complaint}") from error

    def take_in(self, message: messages.CloudMessage) -> None:
        """Have the session take in a message. Raises: as EdgeSession.receive."""
        before, length = self._session.progress, len(self._session.token_ids)
        self._session.receive(message)
        self._is_owing = self._session.is_owed
        self._is_under_way |= len(self._session.token_ids) > length
        if self._session.progress != before:
            self._sign_s = self._progress_s = time.monotonic()
        elif isinstance(message, messages.Working | messages.PromptRead):
            self._sign_s = time.monotonic()

    @property
    def _left_s(self) -> float | None:
        if not self._session.is_owed:
            return None
        return min(self._sign_s + self._silence_s, self._progress_s + self._patience.standstill_s) - time.monotonic()

    @property
    def _silence_s(self) -> float:
        silence_s, opening_s = self._patience.silence_s, self._patience.opening_s
        return silence_s if self._is_under_way or opening_s is None else opening_s

    @property
    def _complaint(self) -> str:
        silence_s, standstill_s = self._silence_s, self._patience.standstill_s
        is_silent = self._sign_s + silence_s <= self._progress_s + standstill_s
        return f"has not answered for {silence_s:g} s" if is_silent else f"has written nothing for {standstill_s:g} s"
