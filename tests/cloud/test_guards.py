"""Attempts to get past the guards of a cloud, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket
from websockets.typing import Origin

from skydraft.cloud import connection
from skydraft.cloud.access.guard import require_guards
from skydraft.cloud.access.keys import KeyGrant, add_key, remove_key
from skydraft.cloud.limits import strangers, uvicorn_limits
from skydraft.cloud.limits.uvicorn_limits import GuardedSocket
from skydraft.config import CloudSettings
from skydraft.core import Prompt, SamplingParams, TensorSegment, TokenSegment
from skydraft.errors import CloudFault, ConfigError
from skydraft.protocol import codec, messages, packing, padding
from skydraft.protocol.messages import FaultCode
from skydraft.transport import websocket
from skydraft.transport.address import is_loopback_host
from tests.cloud.running import (
    SAMPLING,
    Running,
    bearer,
    get,
    hear,
    hear_fault,
    new_session,
    open_session,
    running,
    tell,
    tell_due,
)
from tests.waiting import PATIENCE_S, wait_until

PAGE = "https://good.example"
SHORT_S = 0.4
PATIENT = CloudSettings(port=0, open_s=86400, idle_s=86400)  # which cuts nobody off for its time


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.toml"


@pytest.fixture(scope="module")
def keys(keys_file: Path) -> dict[str, str]:
    """What was handed out, by name."""
    seeing = KeyGrant(max_sessions=2, sees_metrics=True)
    return {"phone": add_key(keys_file, "phone", seeing), "laptop": add_key(keys_file, "laptop", KeyGrant())}


@pytest.fixture(scope="module")
def cloud(keys_file: Path, keys: dict[str, str]) -> Iterator[Running]:
    """A cloud with keys and small limits."""
    settings = CloudSettings(
        port=0,
        keys=str(keys_file),
        allowed_origins=(PAGE,),
        max_frame_bytes=100_000,
        max_prompt_tokens=50,
        max_tensor_bytes=1000,
        max_connections=4,
        max_connections_per_key=2,
    )
    with running(settings) as cloud:
        yield cloud


def connect(
    cloud: Running, key: str | None = None, origin: str | None = None, headers: Mapping[str, str] | None = None
) -> ClientConnection:
    headers = dict(headers or {}) | (bearer(key) if key else {})
    page = None if origin is None else Origin(origin)
    return connect_websocket(cloud.address + "/v1/session", origin=page, additional_headers=headers)


def refusal(
    cloud: Running, key: str | None = None, origin: str | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """The status and sentence of a handshake that fails."""
    with pytest.raises(InvalidStatus) as caught:
        connect(cloud, key, origin, headers)
    response = caught.value.response
    return response.status_code, (response.body or b"").decode()


# Keys


def test_without_a_key_or_with_a_wrong_one_nobody_comes_in(cloud: Running, keys: dict[str, str]) -> None:
    assert refusal(cloud) == (401, "this cloud asks for an API key: Authorization: Bearer KEY")
    for wrong in (keys["phone"][:-1], keys["phone"].replace("phone", "laptop"), "x"):
        assert refusal(cloud, wrong) == (401, "nobody has this API key")
    for scheme in ("Basic ", "", "Bearer"):
        status, _ = refusal(cloud, headers={"Authorization": scheme + keys["phone"]})
        assert status == 401
    assert not cloud.server.service.connections


def test_with_a_key_a_session_opens(cloud: Running, keys: dict[str, str]) -> None:
    with connect(cloud, keys["phone"]) as socket:
        session = new_session()
        open_session(socket, session)
        tell(socket, session.close())


@pytest.mark.parametrize(
    ("key", "words"), [(None, "asks for an API key .HTTP 401.: give one with --key"), ("x", "does not accept the key")]
)
def test_the_device_says_in_a_sentence_that_its_key_is_missing_or_wrong(
    cloud: Running, key: str | None, words: str
) -> None:
    with pytest.raises(CloudFault, match=words) as caught:
        asyncio.run(websocket.connect(cloud.address, token=key))
    assert caught.value.code == FaultCode.UNAUTHORIZED


def test_the_vocabulary_is_for_holders_of_keys(cloud: Running, keys: dict[str, str]) -> None:
    answer = get(cloud.address, "/v1/vocabulary")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "ba" not in answer.text
    assert get(cloud.address, "/v1/vocabulary", **bearer(keys["laptop"])).status == 200


def test_health_is_for_all_and_says_nothing_of_devices(cloud: Running) -> None:
    answer = get(cloud.address, "/healthz")
    assert answer.status == 200
    assert set(json.loads(answer.text)) == {"ok", "version", "protocol", "model", "rows"}


def test_a_key_taken_back_ends_its_connections_and_no_others(
    cloud: Running, keys: dict[str, str], keys_file: Path
) -> None:
    key = add_key(keys_file, "guest", KeyGrant())
    wait_until(lambda: get(cloud.address, "/v1/vocabulary", **bearer(key)).status == 200)
    with connect(cloud, keys["laptop"]) as other, connect(cloud, key) as socket:
        session = new_session()
        open_session(socket, session)
        remove_key(keys_file, "guest")
        with pytest.raises(ConnectionClosed, match="1008 .* its API key is no longer good"):
            socket.recv(timeout=PATIENCE_S)
        open_session(other, new_session())
    assert refusal(cloud, key)[0] == 401


def test_a_resume_key_opens_no_session_of_another_key(cloud: Running, keys: dict[str, str]) -> None:
    session = new_session()
    with connect(cloud, keys["phone"]) as socket:
        tell(socket, session.open())
        opened = hear(socket)
        assert isinstance(opened, messages.Opened)
        session.receive(opened)
        session.offer([1, 2, 3])
        tell_due(socket, session)
        session.receive(hear(socket))
    stolen = messages.Resume(opened.resume_key, len(session.token_ids), packing.log_digest(session.token_ids))
    opening = new_session().open()
    theft = messages.Open(messages.PROTOCOL_VERSION, 0, opening.vocabulary, SAMPLING, "exact", resume=stolen)
    with connect(cloud, keys["laptop"]) as thief:
        tell(thief, theft)
        answer = hear(thief)
        assert isinstance(answer, messages.Opened)
        assert (answer.resume_key, answer.length) == (b"", 0)
    with connect(cloud, keys["phone"]) as socket:
        tell(socket, theft)
        answer = hear(socket)
        assert isinstance(answer, messages.Opened)
        assert (answer.resume_key, answer.length) == (opened.resume_key, len(session.token_ids))
        tell(socket, messages.Close(0))


def test_a_key_has_no_more_sessions_than_its_limit(cloud: Running, keys: dict[str, str]) -> None:
    with connect(cloud, keys["phone"]) as one, connect(cloud, keys["phone"]) as two:
        for number in (0, 1):
            open_session(one, new_session(number))
        tell(two, new_session(0).open())
        fault = hear_fault(two)
        assert fault.code is FaultCode.BUSY
        assert fault.retry_after_s is not None
        tell(one, messages.Close(1))
        open_session(two, new_session(1))
        for socket, number in ((one, 0), (two, 1)):
            tell(socket, messages.Close(number))


def test_a_key_that_has_used_its_tokens_waits_over_whatever_connection(keys_file: Path, keys: dict[str, str]) -> None:
    key = add_key(keys_file, "thrifty", KeyGrant(tokens_per_minute=10))
    with running(CloudSettings(port=0, keys=str(keys_file))) as cloud:
        with connect(cloud, key) as socket:
            tell(socket, new_session().open())
            tell(socket, messages.Generate(20))
            assert "10 tokens a minute" in (fault := hear_fault(socket)).sentence
            assert fault.code is FaultCode.BUSY
        with connect(cloud, key) as socket:
            tell(socket, new_session().open())
            fault = hear_fault(socket)
            assert fault.code is FaultCode.BUSY
            assert fault.retry_after_s is not None
            assert fault.retry_after_s > 1
        with connect(cloud, keys["laptop"]) as socket:
            open_session(socket, new_session())


def test_a_key_has_no_more_offers_waiting_than_its_limit(keys_file: Path) -> None:
    key = add_key(keys_file, "modest", KeyGrant(max_in_flight=1))
    with running(CloudSettings(port=0, keys=str(keys_file))) as cloud, connect(cloud, key) as socket:
        for number in (0, 1):
            open_session(socket, new_session(number))
        tell(socket, messages.Offer(5, b"\x01", session=0))  # leaves a gap before itself, so it waits
        tell(socket, messages.Offer(5, b"\x01", session=1))
        fault = hear_fault(socket)
        assert (fault.code, fault.session) == (FaultCode.BUSY, 1)


# Web pages and proxies


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://good.example", PAGE + ".evil.example"])
def test_a_web_page_that_is_not_allowed_gets_nothing_even_with_a_key(
    cloud: Running, keys: dict[str, str], origin: str
) -> None:
    assert refusal(cloud, keys["phone"], origin=origin) == (403, "web pages of this origin may not use this cloud")
    for path in ("/v1/vocabulary", "/metrics"):
        assert get(cloud.address, path, Origin=origin, **bearer(keys["phone"])).status == 403


def test_a_second_origin_header_does_not_hide_the_first(cloud: Running, keys: dict[str, str]) -> None:
    headers = [("Origin", PAGE), ("Origin", "https://evil.example"), *bearer(keys["phone"]).items()]
    with pytest.raises(InvalidStatus, match="HTTP 4"):
        connect_websocket(cloud.address + "/v1/session", additional_headers=headers)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8471", "127.0.0.1.evil.example", "localhost.evil.example", "[x"]
)
def test_a_web_page_whose_name_leads_here_gets_nothing_of_a_cloud_without_keys(address: str, host: str) -> None:
    for path in ("/metrics", "/v1/vocabulary"):
        answer = get(address, path, Host=host)
        assert (answer.status, "ok" in answer.text) == (403, False)
    with raw_connection(address) as stream:
        stream.sendall(UPGRADE.replace(b"localhost", host.encode()))
        assert stream.recv(100).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8471", "127.0.0.1:8471", "[::1]:8471", "10.0.0.7", "localhost."]
)
def test_addresses_and_localhost_are_names_of_this_machine(address: str, host: str) -> None:
    assert get(address, "/metrics", Host=host).status == 200
    assert get(address, "/v1/vocabulary", Host=host).status == 200


def test_with_a_key_a_cloud_may_have_any_name(cloud: Running, keys: dict[str, str]) -> None:
    assert get(cloud.address, "/v1/vocabulary", Host="cloud.example", **bearer(keys["laptop"])).status == 200
    assert get(cloud.address, "/metrics", Host="cloud.example", **bearer(keys["phone"])).status == 200
    assert get(cloud.address, "/metrics", Host="cloud.example").status == 401


def test_an_allowed_web_page_comes_in_with_a_key_only(cloud: Running, keys: dict[str, str]) -> None:
    assert refusal(cloud, origin=PAGE)[0] == 401
    with connect(cloud, keys["phone"], origin=PAGE) as socket:
        assert socket.protocol.state.name == "OPEN"


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
def test_a_cloud_without_keys_serves_nobody_through_a_proxy(address: str, header: str) -> None:
    cloud_of_conftest = Running(address, None, None)  # type: ignore[arg-type]
    sentence = "this cloud has no keys and serves its own machine only"
    assert refusal(cloud_of_conftest, headers={header: "127.0.0.1"}) == (403, sentence)
    assert get(address, "/metrics", **{header: "127.0.0.1"}).status == 403
    assert get(address, "/metrics").status == 200


# Metrics


def test_metrics_are_for_this_machine_and_for_keys_that_may(cloud: Running, keys: dict[str, str]) -> None:
    through_a_proxy = {"X-Forwarded-For": "203.0.113.7"}
    assert get(cloud.address, "/metrics").status == 200
    assert get(cloud.address, "/metrics", **through_a_proxy).status == 401
    assert get(cloud.address, "/metrics", **bearer("skydraft.phone.x")).status == 401
    assert get(cloud.address, "/metrics", **bearer(keys["laptop"]), **through_a_proxy).status == 403
    answer = get(cloud.address, "/metrics", **bearer(keys["phone"]), **through_a_proxy)
    assert answer.status == 200
    assert 'skydraft_faults_total{code="unauthorized"}' in answer.text


def test_behind_a_proxy_its_own_machine_sees_no_metrics_without_a_key(keys_file: Path, keys: dict[str, str]) -> None:
    with running(CloudSettings(port=0, keys=str(keys_file), behind_proxy=True)) as cloud:
        assert get(cloud.address, "/metrics").status == 401
        assert get(cloud.address, "/metrics", **bearer(keys["phone"])).status == 200


# Room


def test_connections_are_bounded_per_key_and_in_all(cloud: Running, keys: dict[str, str]) -> None:
    wait_until(lambda: not cloud.server.service.connections)
    with ExitStack() as stack:
        for name in ("phone", "phone", "laptop", "laptop"):
            stack.enter_context(connect(cloud, keys[name]))
            if name == "phone" and len(cloud.server.service.connections) == 2:
                assert refusal(cloud, keys["phone"]) == (429, "all 2 connections of this API key are taken")
        assert refusal(cloud, keys["laptop"]) == (503, "all 4 connections of this cloud are taken")
        assert get(cloud.address, "/healthz").status == 200
    wait_until(lambda: not cloud.server.service.connections)
    with connect(cloud, keys["phone"]):
        pass


def test_a_prompt_of_too_many_tokens_or_bytes_ends_in_a_fault(cloud: Running, keys: dict[str, str]) -> None:
    long = Prompt((TokenSegment((1,) * 51),))
    large = Prompt((TensorSegment("log_mel", "float32", (1, 251), bytes(1004)),))
    for prompt, words in ((long, "50"), (large, "1000")):
        with connect(cloud, keys["phone"]) as socket:
            tell(socket, new_session(prompt=prompt).open())
            fault = hear_fault(socket)
            assert words in fault.sentence
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=PATIENCE_S)


def test_a_frame_above_the_limit_is_not_read(cloud: Running, keys: dict[str, str]) -> None:
    with connect(cloud, keys["phone"]) as socket:
        socket.send(bytes(100_001))
        with pytest.raises(ConnectionClosed, match="1009"):
            socket.recv(timeout=PATIENCE_S)


# Time and memory


UPGRADE = (
    b"GET /v1/session HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def raw_connection(address: str) -> sockets.socket:
    parts = urlsplit(address)
    assert parts.hostname is not None
    stream = sockets.socket()
    stream.settimeout(PATIENCE_S)
    stream.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    stream.connect((parts.hostname, parts.port))
    return stream


def raw_websocket(cloud: Running) -> sockets.socket:
    """A device that has come in and does as it likes; what the cloud says it need not read."""
    stream = raw_connection(cloud.address)
    stream.sendall(UPGRADE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += stream.recv(1)
    return stream


def say_until_cut(stream: sockets.socket, words: bytes, every_s: float = 0.0) -> None:
    """Say something again and again until the other side has had enough."""
    until_s = time.monotonic() + PATIENCE_S
    with suppress(ConnectionError):
        while time.monotonic() < until_s:
            stream.sendall(words)
            time.sleep(every_s)
        raise AssertionError(f"it was listened to for {PATIENCE_S:g} s")


def is_cut(stream: sockets.socket) -> bool:
    """Whether the other side ends the connection; what it says before is not looked at."""
    with suppress(ConnectionError):
        while stream.recv(65536):
            pass
    return True


@pytest.fixture(scope="module")
def hasty() -> Iterator[Running]:
    """A cloud that waits for nobody."""
    with pytest.MonkeyPatch.context() as patch, running(CloudSettings(port=0, open_s=SHORT_S)) as cloud:
        patch.setattr(connection, "ABORT_S", SHORT_S)
        yield cloud


def test_a_connection_that_opens_no_session_is_closed(hasty: Running) -> None:
    with connect(hasty) as socket, pytest.raises(ConnectionClosed, match=f"1008 .* asked for within {SHORT_S:g} s"):
        socket.recv(timeout=PATIENCE_S)


def test_pings_do_not_keep_a_connection_that_opens_no_session(hasty: Running) -> None:
    ping = Frame(Opcode.PING, b"").serialize(mask=True)
    began_s = time.monotonic()
    with raw_websocket(hasty) as stream:
        say_until_cut(stream, ping, every_s=SHORT_S / 10)
    assert time.monotonic() - began_s >= SHORT_S


def test_a_device_that_writes_a_frame_byte_by_byte_is_cut_off(hasty: Running) -> None:
    began_s = time.monotonic()
    with raw_websocket(hasty) as stream:
        stream.sendall(bytes([0x82, 0x80 | 126, 0xFF, 0xFF, 0, 0, 0, 0]))  # a binary frame of 65,535 bytes begins
        say_until_cut(stream, b"x", every_s=SHORT_S / 10)
    assert time.monotonic() - began_s >= SHORT_S


def test_a_device_that_pads_now_and_then_is_refused_in_the_way_that_it_began(
    cloud: Running, keys: dict[str, str]
) -> None:
    plain, cover = codec.encode(new_session().open()), padding.pack(deque())
    with connect(cloud, keys["phone"]) as socket:
        socket.send(cover)
        socket.send(plain)
        assert padding.unpack(socket.recv(timeout=PATIENCE_S, decode=False)) == []
        (fault,) = padding.unpack(socket.recv(timeout=PATIENCE_S, decode=False))
        message = codec.decode_cloud_message(fault)
        assert isinstance(message, messages.Fault)
        assert "frames are padded" in message.sentence
    with connect(cloud, keys["phone"]) as socket:
        socket.send(plain)
        hear(socket)
        socket.send(cover)
        assert "begin with c100" in hear_fault(socket).sentence


def test_a_device_that_reads_nothing_is_cut_off_and_its_connection_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ABORT_S", SHORT_S)
    with running(CloudSettings(port=0, stall_s=SHORT_S)) as cloud:
        cloud.server._listeners[0].setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, 4096)
        with raw_websocket(cloud) as stream:
            wait_until(lambda: cloud.server.service.connections)
            (protocol,) = cloud.server.server_state.connections
            protocol.transport.set_write_buffer_limits(0)  # so that less needs to be written until there is no room
            session = new_session(sampling=SamplingParams(max_tokens=4000))
            for message in (session.open(), messages.Generate(4000)):
                stream.sendall(Frame(Opcode.BINARY, codec.encode(message)).serialize(mask=True))
            wait_until(lambda: not cloud.server.server_state.connections)


def test_a_request_that_never_ends_is_cut_off(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "STRANGER_S", SHORT_S)
    for words in (b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"):
        with raw_connection(address) as stream:
            stream.sendall(words)
            assert is_cut(stream)


def test_a_request_with_an_endless_head_is_cut_off(address: str) -> None:
    with raw_connection(address) as stream:
        with pytest.raises(ConnectionError):
            stream.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 50_000_000)
        assert is_cut(stream)


@pytest.fixture
def cut_offs(monkeypatch: pytest.MonkeyPatch) -> list[GuardedSocket]:
    """The connections that were cut off for what came over them; others end as well, for their time."""
    cut: list[GuardedSocket] = []
    abort = GuardedSocket._abort

    def note(self: GuardedSocket) -> None:
        cut.append(self)
        abort(self)

    monkeypatch.setattr(GuardedSocket, "_abort", note)
    return cut


def test_endless_empty_fragments_are_cut_off(cut_offs: list[GuardedSocket]) -> None:
    first = Frame(Opcode.BINARY, b"", fin=False).serialize(mask=True)
    empty = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True)
    with running(PATIENT) as cloud, raw_websocket(cloud) as stream:
        stream.sendall(first)
        say_until_cut(stream, empty * 1000)
    assert cut_offs


def test_a_device_that_pings_and_never_reads_is_cut_off(
    cut_offs: list[GuardedSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_limits, "CONTROL_FRAMES_PER_S", 1e9)  # or its answers would take minutes to fill that
    ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True)
    with running(PATIENT) as cloud, raw_websocket(cloud) as stream:
        say_until_cut(stream, ping * 1000)
    assert cut_offs


# Where it may listen


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.5.5", "::1", "localhost", "::ffff:127.0.0.1"])
def test_this_machine_needs_no_keys(host: str) -> None:
    assert is_loopback_host(host)
    require_guards(CloudSettings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "127.evil.example", "", "::ffff:10.0.0.1"])
def test_beyond_this_machine_keys_and_encryption_are_needed(host: str) -> None:
    with pytest.raises(ConfigError, match="there are no API keys.*cloud-key add NAME"):
        require_guards(CloudSettings(host=host))
    with pytest.raises(ConfigError, match="there are no API keys"):
        require_guards(CloudSettings(host=host, behind_proxy=True, tls_cert="c", tls_key="k"))
    with pytest.raises(ConfigError, match="unencrypted: give --tls-cert and --tls-key, or say --behind-proxy"):
        require_guards(CloudSettings(host=host, keys="k"))
    require_guards(CloudSettings(host=host, keys="k", tls_cert="c", tls_key="k"))
    require_guards(CloudSettings(host=host, keys="k", behind_proxy=True))


def test_behind_a_proxy_keys_are_needed_on_this_machine_too() -> None:
    with pytest.raises(ConfigError, match="a proxy lets other machines in and there are no API keys"):
        require_guards(CloudSettings(behind_proxy=True))


@pytest.mark.parametrize("half", [{"tls_cert": "c"}, {"tls_key": "k"}])
def test_half_a_certificate_is_refused(half: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="give both --tls-cert and --tls-key"):
        require_guards(replace(CloudSettings(), **half))
