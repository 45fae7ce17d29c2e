"""What a device asks a cloud over HTTP, against servers that mean no good."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from skydraft.edge import cloud_http
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.cloud_http import inquire
from skydraft.errors import TransportError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Answer(msgspec.Struct):
    name: str


class Asked:
    """heads: of the requests that came."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.heads: list[str] = []

    @property
    def address(self) -> CloudAddress:
        return CloudAddress(f"ws://127.0.0.1:{self.port}", "secret-key")


@asynccontextmanager
async def answering(answer: Callable[[asyncio.StreamWriter], Awaitable[None]] | bytes) -> AsyncIterator[Asked]:
    serving = set[asyncio.Task[None] | None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):  # it may give up at any time
            asked.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    asked = Asked(server.sockets[0].getsockname()[1])
    async with server:
        yield asked
        await asyncio.gather(*filter(None, serving))


def whole(body: bytes, head: bytes = HEAD) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def test_an_answer_is_read_and_the_question_says_no_more_than_it_must() -> None:
    async with answering(whole(b'{"name": "large"}')) as asked:
        assert (await inquire(asked.address, "/v1/vocabulary", Answer)).name == "large"
    assert asked.heads == [
        f"GET /v1/vocabulary HTTP/1.1\r\nHost: 127.0.0.1:{asked.port}\r\nAuthorization: Bearer secret-key\r\n\r\n"
    ]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed_and_the_key_goes_nowhere_else(status: int) -> None:
    async with answering(whole(b'{"name": "thief"}')) as other:
        head = b"HTTP/1.1 %d Go\r\nLocation: http://127.0.0.1:%d/\r\n" % (status, other.port)
        async with answering(whole(b"", head)) as asked:
            with pytest.raises(TransportError, match=f"HTTP {status}"):
                await inquire(asked.address, "/v1/vocabulary", Answer)
        assert other.heads == []


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\n", HEAD + b"Content-Length: 1000000\r\n\r\n"])
async def test_one_deadline_stands_over_the_whole_answer_however_it_drips(before: bytes) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with answering(drip) as asked:
        with pytest.raises(TransportError, match=r"no whole answer within 0\.2 s"):
            await inquire(asked.address, "/v1/vocabulary", Answer, timeout_s=0.2)


async def test_an_answer_that_is_too_large_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_http, "MAX_BYTES", 10_000)
    for answer in (whole(bytes(100_000)), HEAD + b"\r\n" + bytes(100_000)):
        async with answering(answer) as asked:
            with pytest.raises(TransportError, match="more than 10000 bytes"):
                await inquire(asked.address, "/v1/vocabulary", Answer)


async def test_an_answer_is_not_inflated() -> None:
    async with answering(whole(gzip.compress(b'{"name": "x"}'), HEAD + b"Content-Encoding: gzip\r\n")) as asked:
        with pytest.raises(TransportError, match="no usable answer"):
            await inquire(asked.address, "/v1/vocabulary", Answer)


@pytest.mark.parametrize(
    "answer",
    [b"", b"hello\r\n\r\n", b"\0" * 100, whole(b"[]"), whole(b"{"), whole(b"", b"HTTP/1.1 500 No\r\n"), HEAD[:20]],
)
async def test_whatever_else_comes_is_one_error(answer: bytes) -> None:
    async with answering(answer) as asked:
        with pytest.raises(TransportError, match="gave no usable answer"):
            await inquire(asked.address, "/v1/vocabulary", Answer)


async def test_nobody_there_is_the_same_error() -> None:
    with pytest.raises(TransportError, match="gave no usable answer"):
        await inquire(CloudAddress("ws://127.0.0.1:9"), "/healthz", Answer)


async def test_a_proxy_of_the_system_is_not_used_for_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with answering(whole(b'{"name": "large"}')) as asked:
        await inquire(asked.address, "/healthz", Answer)
