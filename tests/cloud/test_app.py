"""The service over real sockets."""

from __future__ import annotations

import json
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from skydraft.core import Exact, SamplingParams
from skydraft.decoding.edge_session import EdgeSession
from skydraft.protocol import codec, messages
from skydraft.protocol.messages import FaultCode
from tests.linked import PROMPT, cloud_only, table

MODEL = "table:vocab=8,seed=5,order=2"
SAMPLING = SamplingParams(temperature=0.7, seed=3, max_tokens=20)


def new_session() -> EdgeSession:
    return EdgeSession(table(MODEL).vocabulary, PROMPT, SAMPLING, Exact())


def get(address: str, path: str) -> dict[str, object]:
    with urllib.request.urlopen(address.replace("ws://", "http://") + path, timeout=10) as response:
        answer: dict[str, object] = json.load(response)
        return answer


def tell(socket: ClientConnection, message: messages.EdgeMessage) -> None:
    socket.send(codec.encode(message))


def hear(socket: ClientConnection) -> messages.CloudMessage:
    return codec.decode_cloud_message(socket.recv(timeout=10, decode=False))


def test_a_session_over_a_real_socket_writes_the_clouds_text(address: str) -> None:
    session = new_session()
    with connect(address + "/v1/session") as socket:
        tell(socket, session.open())
        tell(socket, session.credit(20))
        while not session.is_complete:
            session.receive(hear(socket))
    assert list(session.token_ids) == cloud_only(table(MODEL), SAMPLING)


def test_a_session_is_taken_up_over_another_socket(address: str) -> None:
    session = new_session()
    with connect(address + "/v1/session") as socket:
        tell(socket, session.open())
        session.receive(hear(socket))
        tell(socket, session.offer([1, 2, 3]))
        session.receive(hear(socket))
    session.disconnect()
    with connect(address + "/v1/session") as socket:
        tell(socket, session.open())
        session.receive(hear(socket))
        assert session.cloud_length == len(session.token_ids) > 0
        tell(socket, session.credit(20))
        while not session.is_complete:
            session.receive(hear(socket))
    assert list(session.token_ids) == cloud_only(table(MODEL), SAMPLING)


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        ("text", FaultCode.PROTOCOL, "binary"),
        (b"", FaultCode.PROTOCOL, ""),
        (b"\x00\x01\x02", FaultCode.PROTOCOL, ""),
        (codec.encode(messages.Verdict(3)), FaultCode.PROTOCOL, ""),
    ],
)
def test_what_is_no_message_gets_a_fault_and_the_connection_ends(
    address: str, frame: str | bytes, code: FaultCode, words: str
) -> None:
    with connect(address + "/v1/session") as socket:
        socket.send(frame)
        fault = hear(socket)
        assert isinstance(fault, messages.Fault)
        assert fault.code is code
        assert words in fault.sentence
        with pytest.raises(ConnectionClosedError, match="1002"):
            hear(socket)


def test_another_version_is_told_both_versions(address: str) -> None:
    opening = bytearray(codec.encode(new_session().open()))
    opening[2] = 9  # [array, tag, version, ...]
    with connect(address + "/v1/session") as socket:
        socket.send(bytes(opening))
        fault = hear(socket)
    assert isinstance(fault, messages.Fault)
    assert fault.code is FaultCode.VERSION
    assert f"version {messages.PROTOCOL_VERSION}" in fault.sentence
    assert "version 9" in fault.sentence


def test_an_oversized_frame_is_not_read(address: str) -> None:
    with connect(address + "/v1/session") as socket:
        socket.send(bytes(200_000))
        with pytest.raises(ConnectionClosedError, match="1009"):
            hear(socket)


def test_a_fault_in_one_session_leaves_the_connection_and_the_others(address: str) -> None:
    session = new_session()
    with connect(address + "/v1/session") as socket:
        tell(socket, messages.Draft(0, b"\x01", session=7))
        fault = hear(socket)
        assert isinstance(fault, messages.Fault)
        assert fault.session == 7
        tell(socket, session.open())
        session.receive(hear(socket))
        tell(socket, session.offer([1]))
        assert session.receive(hear(socket))


def test_health_names_what_is_served(address: str) -> None:
    health = get(address, "/healthz")
    assert health["ok"] is True
    assert health["model"] == MODEL
    assert health["protocol"] == messages.PROTOCOL_VERSION


def test_the_vocabulary_can_be_asked_for(address: str) -> None:
    vocabulary = table(MODEL).vocabulary
    assert get(address, "/v1/vocabulary") == {"name": vocabulary.name, "tokens": list(vocabulary.tokens)}
