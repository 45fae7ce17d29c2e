"""How long the device waits for a cloud: for one that owes an answer, and for one that is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

from skydraft.config import Offline
from skydraft.decoding.edge_session import EdgeSession
from skydraft.errors import TransportError
from skydraft.protocol import messages


class Patience(NamedTuple):
    """When a cloud is lost, though its connection stands, and what to do about it.

    offline: "wait" takes the session up again; otherwise the caller handles the loss.
    wait_s: how long "wait" tries.
    silence_s: a cloud is lost that has neither written nor said that it works on it for so long.
    standstill_s: one is lost that has written nothing for so long, whatever it says.
    """

    offline: Offline
    wait_s: float
    silence_s: float = 120.0
    standstill_s: float = 1800.0


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
        self._waiting = asyncio.timeout(None)

    def asked(self) -> None:
        """Something was sent. A device that gets no answers soon has nothing more to send, so this has an end."""
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
        before = self._session.progress
        self._session.receive(message)
        if self._session.progress != before:
            self._sign_s = self._progress_s = time.monotonic()
        elif isinstance(message, messages.Working):
            self._sign_s = time.monotonic()

    @property
    def _left_s(self) -> float | None:
        if not self._session.is_owed:
            return None
        patience = self._patience
        return min(self._sign_s + patience.silence_s, self._progress_s + patience.standstill_s) - time.monotonic()

    @property
    def _complaint(self) -> str:
        _, _, silence_s, standstill_s = self._patience
        is_silent = self._sign_s + silence_s <= self._progress_s + standstill_s
        return f"has not answered for {silence_s:g} s" if is_silent else f"has written nothing for {standstill_s:g} s"
