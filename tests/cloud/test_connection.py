"""How long a device's connection may be silent, and how far behind, in virtual time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed

from skydraft.cloud import connection
from skydraft.config import CloudSettings
from skydraft.decoding.edge_session import EdgeSession
from skydraft.protocol import codec, messages, padding
from tests import virtual_cloud as module
from tests.cloud.running import MODEL, new_session
from tests.linked import table
from tests.virtual_cloud import virtual_cloud
from tests.virtual_time import in_virtual_time

SETTINGS = CloudSettings()


def now_s() -> float:
    return asyncio.get_running_loop().time()


def connect(url: str) -> connect_websocket:
    return connect_websocket(f"{url}/v1/session", compression=None, ping_interval=None)


async def hear(socket: ClientConnection) -> messages.CloudMessage:
    return codec.decode_cloud_message(await socket.recv(decode=False))


async def open_session(socket: ClientConnection, session: EdgeSession) -> messages.Opened:
    await socket.send(codec.encode(session.open()))
    opened = await hear(socket)
    assert isinstance(opened, messages.Opened)
    session.receive(opened)
    return opened


@in_virtual_time
async def test_a_connection_that_opens_no_session_is_closed() -> None:
    async with virtual_cloud(table(MODEL)) as url, connect(url) as socket:
        begin_s = now_s()
        with pytest.raises(ConnectionClosed, match=f"1008 .* asked for within {SETTINGS.open_s:g} s"):
            await socket.recv()
        assert now_s() - begin_s == pytest.approx(SETTINGS.open_s, abs=0.01)


@in_virtual_time
async def test_an_idle_connection_is_closed_and_its_session_waits() -> None:
    async with virtual_cloud(table(MODEL), CloudSettings(idle_s=20)) as url:
        session = new_session()
        async with connect(url) as socket:
            await open_session(socket, session)
            begin_s = now_s()
            with pytest.raises(ConnectionClosed, match="1008 .* nothing passed over it for 20 s"):
                await socket.recv()
            assert now_s() - begin_s == pytest.approx(20, abs=0.01)
        session.disconnect()
        async with connect(url) as socket:
            assert (await open_session(socket, session)).resume_key != b""


def padded(*said: messages.EdgeMessage) -> bytes:
    return padding.pack(deque(codec.encode(message) for message in said))


@in_virtual_time
async def test_each_padded_frame_is_answered_by_one_and_covers_keep_no_connection_alive() -> None:
    heard, heard_s = list[bytes](), list[float]()
    async with virtual_cloud(table(MODEL), CloudSettings(idle_s=20)) as url, connect(url) as socket:

        async def beat(frame: bytes) -> None:
            while now_s() < begin_s + 100:
                await socket.send(frame)
                heard.append(await socket.recv(decode=False))
                heard_s.append(now_s())
                frame = padded()
                await asyncio.sleep(1)

        begin_s = now_s()
        with pytest.raises(ConnectionClosed, match="1008 .* nothing passed over it for 20 s"):
            await beat(padded(new_session().open(), messages.Generate(3)))
    assert heard_s[-1] - begin_s == pytest.approx(20, abs=1.5)
    assert all(after - before == pytest.approx(1, abs=0.01) for before, after in pairwise(heard_s))
    assert {len(frame) for frame in heard} == {256}
    said = [codec.decode_cloud_message(data) for frame in heard for data in padding.unpack(frame)]
    assert [type(message) for message in said] == [messages.Opened, *[messages.Tokens] * 3]


@asynccontextmanager
async def cloud_that_sends(
    send: Callable[[bytes], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """A cloud that sends in another way."""
    monkeypatch.setattr(module.StarletteSocket, "send_bytes", lambda _, data: send(data))
    async with virtual_cloud(table(MODEL)) as url:
        yield url


@in_virtual_time
async def test_a_device_that_does_not_take_its_messages_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(_: bytes) -> None:  # what uvicorn does while the peer's window is shut
        await asyncio.Event().wait()

    async with cloud_that_sends(stuck, monkeypatch) as url, connect(url) as socket:
        await socket.send(codec.encode(new_session().open()))
        begin_s = now_s()
        with pytest.raises(ConnectionClosed, match=f"1008 .* was not taken within {SETTINGS.stall_s:g} s"):
            await socket.recv()
        assert now_s() - begin_s == pytest.approx(SETTINGS.stall_s, abs=0.01)


@in_virtual_time
async def test_a_device_that_leaves_too_many_messages_unread_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_OUTBOX", 2)

    async def slow(_: bytes) -> None:
        await asyncio.sleep(1)

    async with cloud_that_sends(slow, monkeypatch) as url, connect(url) as socket:
        for message in (new_session().open(), messages.Generate(20)):
            await socket.send(codec.encode(message))
        begin_s = now_s()
        with pytest.raises(ConnectionClosed, match="1008 .* messages to it were not read"):
            await socket.recv()
        assert now_s() - begin_s < 1
