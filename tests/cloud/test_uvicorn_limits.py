"""What strangers and devices send in order to cost a cloud time, places and memory, over real sockets."""

from __future__ import annotations

import socket as sockets
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from urllib.request import urlopen

import pytest
import trustme
from msgspec.structs import replace
from packaging.requirements import Requirement
from uvicorn import Server as UvicornServer
from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect

from skydraft.cloud.access.keys import KeyGrant, add_key
from skydraft.cloud.limits import listener, strangers, uvicorn_limits
from skydraft.cloud.limits import sliced_stream as stream_module
from skydraft.cloud.limits.listen import SPARE_CONNECTIONS
from skydraft.cloud.limits.sliced_stream import MAX_REQUEST_BYTES, SLICE_BYTES
from skydraft.cloud.limits.uvicorn_limits import CONTROL_FRAMES_PER_S, MAX_FRAGMENTS, MAX_HEAD_LINES
from skydraft.config import CloudSettings
from skydraft.core import Prompt, TensorSegment
from skydraft.protocol import codec, messages
from tests.cloud.running import (
    Running,
    bearer,
    get,
    hear_fault,
    new_session,
    open_session,
    running,
    tell,
    tell_due,
    the_websocket,
)
from tests.cloud.test_guards import raw_connection, raw_websocket
from tests.cloud.test_serve import trusting, write_certificate
from tests.waiting import PATIENCE_S, wait_until

FEW = 4  # devices that the cloud of these tests takes
PLACES = FEW + SPARE_CONNECTIONS


@pytest.fixture(scope="module")
def cloud() -> Iterator[Running]:
    with running(CloudSettings(port=0, max_connections=FEW)) as cloud:
        yield cloud


def answer_to(cloud: Running, request: bytes) -> bytes:
    """All that a cloud says until it closes the connection."""
    with raw_connection(cloud.address) as stream:
        stream.sendall(request)
        return b"".join(iter(lambda: stream.recv(65536), b""))


def ended(stream: sockets.socket) -> bool:
    """Whether the cloud has ended a connection, as far as is known now."""
    stream.setblocking(False)
    try:
        return stream.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def wait_until_ended(stream: sockets.socket) -> None:
    stream.settimeout(PATIENCE_S)
    try:
        while stream.recv(65536):
            pass
    except ConnectionError:
        pass


# Requests


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked", b"Content-Length: 1000000"])
def test_a_request_with_a_body_is_refused_before_the_body_is_looked_at(cloud: Running, framing: bytes) -> None:
    answer = answer_to(cloud, b"POST /healthz HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_connection_takes_one_request_and_says_so(cloud: Running) -> None:
    answer = answer_to(cloud, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"connection: close\r\n" in answer


def test_an_empty_body_is_none(cloud: Running) -> None:
    answer = answer_to(cloud, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_head_of_many_lines_is_cut_off_and_one_as_proxies_make_it_is_not(cloud: Running) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    assert answer_to(cloud, head + b"x-a: 1\r\n" * (MAX_HEAD_LINES - 10) + b"\r\n").startswith(b"HTTP/1.1 200")
    with raw_connection(cloud.address) as stream:
        stream.sendall(head + b"a:\r\n" * 2 * MAX_HEAD_LINES)
        wait_until_ended(stream)


# Strangers


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stranger is cut off for its time."""
    for module in (strangers, listener):
        monkeypatch.setattr(module, "STRANGER_S", 86400.0)


@pytest.mark.usefixtures("patient")
def test_silent_connections_lose_their_places_to_who_comes(cloud: Running) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(raw_connection(cloud.address)) for _ in range(2 * PLACES)]
        assert get(cloud.address, "/healthz").status == 200
        with connect(cloud.address + "/v1/session") as socket:
            open_session(socket, new_session())
            more = [stack.enter_context(raw_connection(cloud.address)) for _ in range(2 * PLACES)]
            wait_until_ended(silent[-1])  # the last of the first to go, now that all places are the others'
            tell(socket, messages.Generate(5))
            assert isinstance(codec.decode_cloud_message(socket.recv(PATIENCE_S, decode=False)), messages.Tokens)
        assert not ended(more[-1])


@pytest.mark.usefixtures("patient")
def test_under_tls_who_never_says_hello_takes_a_place_and_loses_it(tmp_path: Path) -> None:
    authority = trustme.CA()
    settings = write_certificate(authority, tmp_path)
    with ExitStack() as stack, running(replace(settings, max_connections=FEW)) as cloud:
        silent = [stack.enter_context(raw_connection(cloud.address)) for _ in range(2 * PLACES)]
        wait_until_ended(silent[0])
        with connect(cloud.address + "/v1/session", ssl=trusting(authority)) as socket:
            open_session(socket, new_session())
        with urlopen(cloud.address.replace("wss", "https") + "/healthz", context=trusting(authority)) as answer:
            assert answer.status == 200
        num_kept = sum(not ended(stream) for stream in silent)
        assert 0 < num_kept <= PLACES


def to_dict(settings: CloudSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


@pytest.mark.usefixtures("patient")
def test_a_cloud_ends_with_strangers_at_its_door(tmp_path: Path) -> None:
    for settings in (CloudSettings(port=0), write_certificate(trustme.CA(), tmp_path)):
        with ExitStack() as stack:
            with running(settings) as cloud:
                silent = [stack.enter_context(raw_connection(cloud.address)) for _ in range(10)]
            for stream in silent:
                wait_until_ended(stream)


# Frames


def read_for(stream: sockets.socket, quiet_s: float) -> bytes:
    """What comes until nothing has for so long."""
    stream.settimeout(quiet_s)
    heard = b""
    try:
        while data := stream.recv(65536):
            heard += data
    except TimeoutError:
        return heard
    raise AssertionError("the connection was ended")


def control_frames(opcode: Opcode, num: int) -> bytes:
    return Frame(opcode, b"").serialize(mask=True) * num


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
def test_control_frames_beyond_a_rate_wait_and_hold_up_nobody(
    cloud: Running, opcode: Opcode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_limits, "CONTROL_FRAMES_PER_S", 0.1)  # so that those that wait do so for long
    close = Frame(Opcode.CLOSE, b"").serialize(mask=True)
    with raw_websocket(cloud) as flooding, connect(cloud.address + "/v1/session") as socket:
        flooding.sendall(control_frames(opcode, 2000) + close)
        session = new_session()
        open_session(socket, session)
        session.give_credit(20)
        tell_due(socket, session)
        while not session.is_complete:
            session.receive(codec.decode_cloud_message(socket.recv(PATIENCE_S, decode=False)))
        frame_bytes = 6
        num_answered = (SLICE_BYTES // frame_bytes + 1) if opcode is Opcode.PING else 0
        assert len(read_for(flooding, 0.5)) <= 2 * num_answered  # a pong is two bytes


def test_as_many_pings_as_a_second_has_are_answered_at_once(cloud: Running) -> None:
    with connect(cloud.address + "/v1/session") as socket:
        waiters = [socket.ping() for _ in range(CONTROL_FRAMES_PER_S)]
        assert all(waiter.wait(PATIENCE_S) for waiter in waiters)
        open_session(socket, new_session())


def test_thousands_of_small_messages_at_once_are_all_taken(cloud: Running) -> None:
    message = Frame(Opcode.BINARY, codec.encode(messages.Close(0))).serialize(mask=True)
    with connect(cloud.address + "/v1/session") as socket:
        socket.socket.sendall(message * 5000)
        tell(socket, messages.Generate(1, 7))
        assert hear_fault(socket).session == 7


def test_a_long_message_in_small_fragments_is_taken() -> None:
    prompt = Prompt((TensorSegment("log_mel", "float32", (2**21, 2), bytes(2**24)),))
    data = codec.encode(new_session(prompt=prompt).open())
    size = len(data) // (2 * MAX_FRAGMENTS)
    settings = CloudSettings(port=0, max_frame_bytes=2**25, max_tensor_bytes=2**25)
    with running(settings) as cloud, connect(cloud.address + "/v1/session", compression=None) as socket:
        socket.send(data[start : start + size] for start in range(0, len(data), size))
        assert hear_fault(socket).code is messages.FaultCode.PROMPT  # the model has no ears; it was read to its end


def test_unfinished_messages_cost_who_holds_most_of_them_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MIN_UNFINISHED_BYTES", 0)  # so that the bound is 4 messages
    keys = {name: add_key(tmp_path / "keys", name, KeyGrant()) for name in ("modest", "greedy")}
    settings = CloudSettings(port=0, keys=str(tmp_path / "keys"), max_frame_bytes=2**16)
    half = Frame(Opcode.BINARY, bytes(2**16)).serialize(mask=True)[:-1]
    with ExitStack() as stack, running(settings) as cloud:

        def hold(name: str) -> sockets.socket:
            connection = connect(cloud.address + "/v1/session", additional_headers=bearer(keys[name]))
            stream = stack.enter_context(connection).socket
            stream.sendall(half)
            return stream

        hold("modest")
        greedy = [hold("greedy") for _ in range(4)]
        held = cloud.server.service.connections
        wait_until(lambda: len(held) < 5)
        assert sorted(connection.holder.name for connection in held) == ["greedy"] * 3 + ["modest"]
        assert len(greedy) == 4


def test_a_connection_that_is_lost_holds_nothing_of_its_message() -> None:
    with running(CloudSettings(port=0)) as cloud:
        with raw_websocket(cloud) as stream:
            stream.sendall(Frame(Opcode.BINARY, bytes(2**16)).serialize(mask=True)[:-1])
            protocol = the_websocket(cloud)
            wait_until(lambda: len(protocol.conn.reader.buffer) > 2**15)
        wait_until(lambda: not cloud.server.server_state.connections)
        assert protocol.conn.reader.buffer == b""


def test_a_message_above_the_limit_is_refused_from_its_head(cloud: Running) -> None:
    with connect(cloud.address + "/v1/session") as socket:
        socket.socket.sendall(bytes([0x82, 0x80 | 127]) + (2**40).to_bytes(8, "big") + bytes(4))
        with pytest.raises(ConnectionClosed, match="1009"):
            socket.recv(timeout=PATIENCE_S)


def test_bytes_behind_a_request_are_bounded(cloud: Running) -> None:
    with raw_connection(cloud.address) as stream, pytest.raises(ConnectionError):
        stream.sendall(b"x" * 1000 * MAX_REQUEST_BYTES)


# What is private of others


def test_what_is_private_of_uvicorn_and_websockets_is_there_as_we_use_it() -> None:
    """Anything of this may change with any version, which is why their versions have an upper bound."""
    assert ASGISendEvent is not None
    made = ["config", "server_state", "app_state", "_loop"]
    config, state = Config("x:y", interface="asgi3", log_config=None), ServerState()
    config.loaded, config.loaded_app, config.ws_protocol_class = True, None, None
    config.encoded_headers = []
    for protocol_class in (H11Protocol, WebSocketsSansIOProtocol):
        assert list(signature(protocol_class).parameters) == made
    http = H11Protocol(config, state, {}, _loop=object())  # type: ignore[arg-type]
    assert {"conn", "transport"} <= vars(http).keys()
    socket = WebSocketsSansIOProtocol(config, state, {}, _loop=object())  # type: ignore[arg-type]
    assert {"conn", "transport", "frames", "handshake_complete", "queue"} <= vars(socket).keys()
    assert (socket.conn.reader.buffer, socket.conn.current_size) == (bytearray(), None)
    for name in ("data_received", "handle_ping", "handle_pong", "send", "shutdown"):
        assert callable(getattr(WebSocketsSansIOProtocol, name))
    for name in ("startup", "shutdown", "on_tick", "handle_exit"):
        assert callable(getattr(UvicornServer, name))
    assert list(signature(UvicornServer.startup).parameters) == ["self", "sockets"]
    server = UvicornServer(config)
    assert {"server_state", "should_exit", "_captured_signals"} <= vars(server).keys()


def test_their_versions_have_an_upper_bound_and_the_installed_ones_are_within() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], project["optional-dependencies"]["cloud"]]
    wanted = {need.name: need.specifier for need in map(Requirement, lists[0] + lists[1])}
    for name in ("uvicorn", "websockets", "h11"):
        assert any(part.operator == "<" for part in wanted[name]), name
        assert version(name) in wanted[name]
