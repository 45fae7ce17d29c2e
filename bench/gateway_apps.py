"""Apps of `bench.gateway`, in a process of their own: in the gateway's they would take its time.

They speak HTTP by hand, for a client library takes milliseconds for a request, which 20 at once wait for.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import NamedTuple
from urllib.parse import urlsplit

WAY_OUT: None = None
DONE = b"data: [DONE]"


class Written(NamedTuple):
    """A text and how long it and its first piece took."""

    text: str
    first_s: float
    total_s: float


class Apps:
    """The process; made by `apps`."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    async def stream(self, bodies: Sequence[dict[str, object]]) -> list[Written]:
        """Have texts streamed by /v1/completions, all at once, each over a connection of its own."""
        self._pipe.send([json.dumps(body).encode() for body in bodies])
        written: list[Written] = await asyncio.to_thread(self._pipe.recv)
        return written


@contextmanager
def apps(url: str) -> Iterator[Apps]:
    """Start them, for the gateway at this base URL."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(url, theirs), daemon=True)
    process.start()
    try:
        yield Apps(ours)
        ours.send(WAY_OUT)
        process.join(5.0)
    finally:
        process.kill()


def _serve(url: str, pipe: Connection) -> None:
    while (bodies := pipe.recv()) is not WAY_OUT:
        pipe.send(asyncio.run(_stream_all(url, bodies)))


async def _stream_all(url: str, bodies: Sequence[bytes]) -> list[Written]:
    return await asyncio.gather(*(_stream(url, body) for body in bodies))


async def _stream(url: str, body: bytes) -> Written:
    where, texts, first_s = urlsplit(url), list[str](), 0.0
    path = f"{where.path.rstrip('/')}/completions"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    begin_s = time.perf_counter()
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(head.encode() + body)
    while not (line := await reader.readline()).startswith(DONE):
        if line.startswith(b"data: {"):
            first_s = first_s or time.perf_counter() - begin_s
            texts.append(json.loads(line[6:])["choices"][0]["text"])
    writer.close()
    return Written("".join(texts), first_s, time.perf_counter() - begin_s)
