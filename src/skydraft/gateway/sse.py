"""Answers to apps that may hang up: when one does, what is made for it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from typing import TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_Result = TypeVar("_Result")

DONE = b"data: [DONE]\n\n"


class HungUp(Exception):
    """The app has closed the connection."""


def event(data: object, name: str | None = None) -> bytes:
    """A server-sent event with an object as JSON."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"


async def unless_hung_up(receive: Receive, work: Awaitable[_Result]) -> _Result:
    """Do something for an app whose request has been read whole; it is cancelled when the app hangs up.

    Raises:
        HungUp: it did.
    """
    working, listening = asyncio.ensure_future(work), asyncio.ensure_future(until_hung_up(receive))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise HungUp
    finally:
        for task in (working, listening):
            task.cancel()
        await asyncio.gather(working, listening, return_exceptions=True)


async def begin_stream(receive: Receive, events: AsyncGenerator[bytes, None]) -> EventStream:
    """An answer of events, once there is the first of them: an error before it has a status of its own.

    Raises:
        HungUp: the app did not wait for it. What making the first event raises.
    """
    first = await unless_hung_up(receive, anext(events))
    return EventStream(first, events)


async def until_hung_up(receive: Receive) -> None:
    """Wait for an app whose request has been read whole to close the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Events as they come. What stands before the first of them is part of the answer: an error there has its status.

    Args:
        first: the first event. rest: those behind it.
    """

    media_type = "text/event-stream"

    def __init__(
        self, first: bytes, rest: AsyncGenerator[bytes, None], headers: Mapping[str, str] | None = None
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._first = first
        self._rest = rest
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_hung_up(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._rest) as rest:
            await _put(send, self._first)
            async for each in rest:
                await _put(send, each)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _put(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
