"""The device's end against a real WebSocket server: on the loopback, and where time is the matter in virtual time."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from skydraft.errors import CloudBusy, CloudFault, TransportError
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings
from skydraft.transport.websocket import CLOSE_TIMEOUT_S, UNSENT_BYTES, Connection, connect
from tests.virtual_time import in_virtual_time
from tests.waiting import PATIENCE_S, until

Handler = Callable[[ServerConnection], Awaitable[None]]


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def cloud(handler: Handler = echo, **options: Any) -> AsyncIterator[Server]:
    options = {"compression": None, "max_size": 2**24, "ping_interval": None, **options}
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        yield server


def port_of(server: Server | asyncio.Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])


@asynccontextmanager
async def connected(handler: Handler = echo, **options: Any) -> AsyncIterator[Connection]:
    async with cloud(handler) as server:
        connection = await connect(f"127.0.0.1:{port_of(server)}", **options)
        yield connection
        await connection.close()


def answering(status: HTTPStatus) -> Callable[[ServerConnection, Request], Response]:
    return lambda connection, _: connection.respond(status, "")


# Messages


async def test_messages_come_back_whole_and_in_order() -> None:
    messages = [b"", b"a", bytes(range(256)) * 300, b"\xff" * 2_000_000, b"z"]
    async with connected() as connection:
        for message in messages:
            await connection.send(message)
        assert [await connection.receive() for _ in messages] == messages


async def test_a_short_message_adds_six_bytes_and_goes_at_once() -> None:
    async with cloud() as server, Link(Address("127.0.0.1", port_of(server))) as link:
        connection = await connect(f"127.0.0.1:{link.address.port}")
        before = link.carried
        await connection.send(bytes(24))
        await connection.receive()
        after = link.carried
        assert (after.up_bytes - before.up_bytes, after.down_bytes - before.down_bytes) == (24 + 6, 24 + 2)
        sock = connection._wire.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES
        await connection.close()


async def test_no_compression_is_offered() -> None:
    offered = []

    async def look(connection: ServerConnection) -> None:
        assert connection.request is not None
        offered.append(connection.request.headers.get("Sec-WebSocket-Extensions"))

    async with connected(look) as connection:
        with pytest.raises(TransportError):
            await connection.receive()
    assert offered == [None]


async def test_the_key_travels_as_a_bearer_token_to_the_session_path() -> None:
    seen = []

    async def look(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append((connection.request.path, connection.request.headers.get("Authorization")))

    async with connected(look, token="key-1") as connection:
        with pytest.raises(TransportError):
            await connection.receive()
    assert seen == [("/v1/session", "Bearer key-1")]


async def test_a_route_id_travels_as_a_header_and_only_where_one_is_given() -> None:
    seen = []

    async def look(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.headers.get("x-session-id"))

    for options in ({"route_id": "text-1"}, {}):
        async with connected(look, **options) as connection:
            with pytest.raises(TransportError):
                await connection.receive()
    assert seen == ["text-1", None]


@in_virtual_time
async def test_receiving_may_be_cancelled() -> None:
    async with connected() as connection:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.receive(), 0.02)
        await connection.send(b"later")
        assert await connection.receive() == b"later"


# How it ends


@pytest.mark.parametrize(
    ("code", "reason", "complaint"),
    [
        (1000, "", "the cloud closed it"),
        (1001, "", "the cloud is shutting down"),
        (1009, "", "the cloud refused a message as too large"),
        (1002, "bad frame", r"the cloud closed it with code 1002 \(bad frame\)"),
        (4000, "", "the cloud closed it with code 4000$"),
    ],
)
async def test_a_cloud_that_closes_is_quoted(code: int, reason: str, complaint: str) -> None:
    async def leave(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    async with connected(leave) as connection:
        with pytest.raises(TransportError, match=rf"connection to ws://127.0.0.1:\d+/v1/session is lost: {complaint}"):
            await connection.receive()
        with pytest.raises(TransportError, match=complaint):
            await connection.send(b"more")


async def test_text_is_refused() -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.send("hello")
        await connection.wait_closed()

    async with connected(talk) as connection:
        for _ in range(2):
            with pytest.raises(TransportError, match="sent text"):
                await connection.receive()


async def test_a_message_above_the_limit_is_refused() -> None:
    async with connected(max_frame_bytes=1000) as connection:
        await connection.send(bytes(1000))
        assert len(await connection.receive()) == 1000
        await connection.send(bytes(1001))
        with pytest.raises(TransportError, match="more than 1000 bytes in one message"):
            await connection.receive()


async def test_a_connection_that_breaks_off_is_lost_for_both_directions() -> None:
    async with cloud() as server, Link(Address("127.0.0.1", port_of(server))) as link:
        connection = await connect(f"127.0.0.1:{link.address.port}")
        link.cut()
        with pytest.raises(TransportError, match="is lost: it broke off"):
            await connection.receive()
        with pytest.raises(TransportError, match="is lost"):
            await connection.send(b"more")
        await connection.close()


async def test_what_was_closed_here_says_so() -> None:
    async with connected() as connection:
        await connection.close()
        for action in (connection.receive(), connection.send(b"")):
            with pytest.raises(TransportError, match="this side closed it"):
                await action
        await connection.close()


@in_virtual_time
async def test_closing_wakes_who_waits() -> None:
    async with connected() as connection:
        waiting = asyncio.create_task(connection.receive())
        await asyncio.sleep(0.01)
        await connection.close()
        with pytest.raises(TransportError, match="this side closed it"):
            await waiting


@in_virtual_time
async def test_a_long_message_that_is_cancelled_breaks_the_connection_off() -> None:
    async with cloud() as server, Link(Address("127.0.0.1", port_of(server))) as link:
        connection = await connect(f"127.0.0.1:{link.address.port}")
        link.freeze(60)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.send(bytes(20_000_000)), 0.1)
        with pytest.raises(TransportError, match="cancelled half way"):
            await connection.send(b"next")
        await connection.close()


# Life and death


DEAD_AFTER_S = 20.0


def now_s() -> float:
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_a_dead_peer_is_found_in_time_while_receiving() -> None:
    async with cloud() as server, Link(Address("127.0.0.1", port_of(server))) as link:
        connection = await connect(f"127.0.0.1:{link.address.port}", dead_after_s=DEAD_AFTER_S)
        await connection.send(b"a")
        await connection.receive()
        link.freeze(1000)
        begin_s = now_s()
        with pytest.raises(TransportError, match="no sign of life for 20 s"):
            await connection.receive()
        assert 0.75 * DEAD_AFTER_S <= now_s() - begin_s <= DEAD_AFTER_S + 0.1
        await connection.close()


@in_virtual_time
async def test_a_dead_peer_is_found_in_time_while_sending() -> None:
    async with cloud() as server, Link(Address("127.0.0.1", port_of(server))) as link:
        connection = await connect(f"127.0.0.1:{link.address.port}", dead_after_s=DEAD_AFTER_S)
        link.freeze(1000)
        begin_s = now_s()
        with pytest.raises(TransportError, match="no sign of life for 20 s"):
            await connection.send(bytes(5_000_000))
        assert 0.75 * DEAD_AFTER_S <= now_s() - begin_s <= DEAD_AFTER_S + 0.1
        await connection.close()


@in_virtual_time
async def test_closing_does_not_wait_for_a_dead_peer() -> None:
    async with cloud() as server, Link(Address("127.0.0.1", port_of(server))) as link:
        connection = await connect(f"127.0.0.1:{link.address.port}")
        link.freeze(1000)
        sending = asyncio.create_task(connection.send(bytes(5_000_000)))
        await asyncio.sleep(1)
        begin_s = now_s()
        await connection.close()
        assert now_s() - begin_s <= CLOSE_TIMEOUT_S + 0.1
        with pytest.raises(TransportError):
            await sending


@in_virtual_time
async def test_an_idle_connection_lives() -> None:
    async with connected(dead_after_s=DEAD_AFTER_S) as connection:
        await asyncio.sleep(3 * DEAD_AFTER_S)
        await connection.send(b"still here")
        assert await connection.receive() == b"still here"


@in_virtual_time
async def test_a_slow_uplink_lives_while_it_moves() -> None:
    settings = LinkSettings(PathSettings(rate_mbps=0.24, queue_bytes=20_000))
    async with cloud() as server, Link(Address("127.0.0.1", port_of(server)), settings) as link:
        connection = await connect(f"127.0.0.1:{link.address.port}", dead_after_s=DEAD_AFTER_S)
        data = bytes(1_200_000)
        begin_s = now_s()
        await connection.send(data)
        assert await connection.receive() == data
        assert now_s() - begin_s >= 2 * DEAD_AFTER_S
        await connection.close()


@in_virtual_time
async def test_a_stopped_process_does_not_take_its_peer_for_dead() -> None:
    async with connected(dead_after_s=DEAD_AFTER_S) as connection:
        await asyncio.sleep(1)
        time.sleep(2.5 * DEAD_AFTER_S)  # noqa: ASYNC251 - the whole loop stands still, as under a long computation
        await asyncio.sleep(1.5 * DEAD_AFTER_S)
        await connection.send(b"a")
        assert await connection.receive() == b"a"


@in_virtual_time
async def test_what_nobody_receives_does_not_kill_the_connection() -> None:
    async def pour(connection: ServerConnection) -> None:
        for _ in range(200):
            await connection.send(bytes(50_000))
        await connection.wait_closed()

    async with connected(pour, dead_after_s=DEAD_AFTER_S) as connection:
        await asyncio.sleep(3 * DEAD_AFTER_S)
        assert sum([len(await connection.receive()) for _ in range(200)]) == 10_000_000


# Where there is no cloud


async def test_nothing_listening_is_a_sentence() -> None:
    async with cloud() as server:
        port = port_of(server)
    with pytest.raises(TransportError, match=f"at ws://127.0.0.1:{port}/v1/session: nothing listens there"):
        await connect(f"127.0.0.1:{port}")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".invalid"])
async def test_an_unknown_host_is_a_sentence(host: str) -> None:
    with pytest.raises(TransportError, match=f"the host name {host} is not known"):
        await connect(f"ws://{host}:80", timeout_s=PATIENCE_S)


async def test_a_refused_key_is_a_fault() -> None:
    async with cloud(process_request=answering(HTTPStatus.UNAUTHORIZED)) as server:
        with pytest.raises(CloudFault, match="does not accept the key .HTTP 401.") as caught:
            await connect(f"127.0.0.1:{port_of(server)}", token="wrong")
    assert caught.value.code == "unauthorized"
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        ("", "check the address and its path"),
        ("this cloud serves its own machine only", "this cloud serves its own machine only"),
        ("\x1b[2J", "check the address and its path"),
        ("no" * 200, "no" * 100 + "$"),
    ],
)
@pytest.mark.parametrize("token", [None, "key"])
async def test_a_403_is_no_question_of_keys_and_is_quoted(said: str, quoted: str, token: str | None) -> None:
    async with cloud(process_request=lambda server, _: server.respond(HTTPStatus.FORBIDDEN, said)) as server:
        with pytest.raises(CloudFault, match=rf"does not let this device in .HTTP 403.: {quoted}") as caught:
            await connect(f"127.0.0.1:{port_of(server)}", token=token)
    assert "API key" not in str(caught.value)


async def test_a_cloud_that_takes_nobody_for_now_is_told_from_one_that_is_not_there() -> None:
    for status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        async with cloud(process_request=answering(status)) as server:
            with pytest.raises(CloudBusy, match="try again"):
                await connect(f"127.0.0.1:{port_of(server)}")
    with pytest.raises(TransportError) as caught:
        await connect("127.0.0.1:9")
    assert not isinstance(caught.value, CloudBusy)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("is_elsewhere", [True, False])
async def test_no_redirect_is_followed_and_the_key_goes_nowhere_else(status: int, is_elsewhere: bool) -> None:
    seen = list[str]()

    async def look(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.path)

    def redirect(connection: ServerConnection, request: Request) -> Response | None:
        if request.path != "/v1/session":
            return None
        response = connection.respond(HTTPStatus(status), "")
        response.headers["Location"] = f"ws://127.0.0.1:{port_of(other if is_elsewhere else server)}/elsewhere"
        return response

    async with cloud(look) as other, cloud(look, process_request=redirect) as server:
        with pytest.raises(TransportError, match=rf"HTTP {status}., which is not followed"):
            await connect(f"127.0.0.1:{port_of(server)}", token="key")
    assert seen == []


async def test_the_handshake_says_no_more_than_it_must() -> None:
    seen = []

    async def look(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append({name.lower() for name in connection.request.headers})

    async with connected(look, token="key", route_id="text-1") as connection:
        with pytest.raises(TransportError):
            await connection.receive()
    websocket = {"host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version"}
    assert seen == [websocket | {"authorization", "x-session-id", "x-skydraft-wants"}]


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        (HTTPStatus.NOT_FOUND, "no skydraft cloud at this path"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "HTTP 503.; try again"),
        (HTTPStatus.IM_A_TEAPOT, "refuses the connection .HTTP 418"),
        (HTTPStatus.OK, "refuses the connection .HTTP 200"),
    ],
)
async def test_http_statuses_are_sentences(status: HTTPStatus, complaint: str) -> None:
    async with cloud(process_request=answering(status)) as server:
        with pytest.raises(TransportError, match=complaint):
            await connect(f"127.0.0.1:{port_of(server)}")


@asynccontextmanager
async def stranger(said: bytes) -> AsyncIterator[int]:
    """A server that says something else, or nothing."""

    num_begun = num_ended = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_begun, num_ended
        num_begun += 1
        writer.write(said)
        if said:
            writer.write_eof()
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        num_ended += 1

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        yield port_of(server)
        await until(lambda: num_ended == num_begun)


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\0" * 100, b"HTTP/1.1 101 Go\r\nUpgrade: tea\r\n\r\n"])
async def test_a_stranger_is_a_sentence(said: bytes) -> None:
    async with stranger(said) as port:
        with pytest.raises(TransportError, match="what answers is no skydraft cloud"):
            await connect(f"127.0.0.1:{port}")


@in_virtual_time
async def test_silence_ends_at_the_timeout() -> None:
    async with stranger(b"") as port:
        with pytest.raises(TransportError, match=r"did not answer within 0\.1 s"):
            await connect(f"127.0.0.1:{port}", timeout_s=0.1)


async def test_a_proxy_of_the_system_is_not_used_for_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with connected() as connection:
        await connection.send(b"a")
        assert await connection.receive() == b"a"
    with pytest.raises(TransportError, match="at wss://cloud.invalid:8471/v1/session"):
        await connect("cloud.invalid")


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -days 2 "
        "-out certificate.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "certificate.pem", folder / "key.pem"


@asynccontextmanager
async def secure_cloud(certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with cloud(ssl=context) as server:
        yield port_of(server)


async def test_tls_with_a_trusted_certificate(certificate: tuple[Path, Path]) -> None:
    async with secure_cloud(certificate) as port:
        connection = await connect(f"https://localhost:{port}", tls=ssl.create_default_context(cafile=certificate[0]))
        await connection.send(bytes(100_000))
        assert await connection.receive() == bytes(100_000)
        await connection.close()


async def test_a_certificate_that_is_not_trusted_is_a_sentence(certificate: tuple[Path, Path]) -> None:
    async with secure_cloud(certificate) as port:
        with pytest.raises(TransportError, match=r"its certificate is not trusted \(self.signed .*in SSL_CERT_FILE$"):
            await connect(f"wss://localhost:{port}")


async def test_a_certificate_of_another_name_is_not_asked_for_again(certificate: tuple[Path, Path]) -> None:
    async with secure_cloud(certificate) as port:
        trusted = ssl.create_default_context(cafile=certificate[0])
        with pytest.raises(TransportError, match=r"is not trusted \(IP address mismatch.*'127.0.0.1'\.\)$"):
            await connect(f"wss://127.0.0.1:{port}", tls=trusted)


async def test_tls_to_a_cloud_without_it_is_a_sentence() -> None:
    async with cloud() as server:
        with pytest.raises(TransportError, match=r"TLS failed .* is it a ws:// address\?"):
            await connect(f"wss://127.0.0.1:{port_of(server)}")
