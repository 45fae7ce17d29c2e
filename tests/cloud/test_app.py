"""The service over real sockets."""

from __future__ import annotations

import json

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from skydraft.config import CloudSettings
from skydraft.engines.emulated.paced import Pace, pace_engine
from skydraft.protocol import codec, messages
from skydraft.protocol.messages import FaultCode
from tests.cloud.running import MODEL, SAMPLING, get, hear, new_session, running, tell, tell_due
from tests.linked import cloud_only, table


def test_a_session_over_a_real_socket_writes_the_clouds_text(address: str) -> None:
    session = new_session()
    with connect(address + "/v1/session") as socket:
        tell(socket, session.open())
        session.give_credit(20)
        tell_due(socket, session)
        while not session.is_complete:
            session.receive(hear(socket))
    assert list(session.token_ids) == cloud_only(table(MODEL), SAMPLING)


def test_a_session_is_taken_up_over_another_socket(address: str) -> None:
    session = new_session()
    with connect(address + "/v1/session") as socket:
        tell(socket, session.open())
        session.receive(hear(socket))
        session.offer([1, 2, 3])
        tell_due(socket, session)
        session.receive(hear(socket))
    session.disconnect()
    with connect(address + "/v1/session") as socket:
        tell(socket, session.open())
        session.receive(hear(socket))
        assert session.cloud_length == len(session.token_ids) > 0
        session.give_credit(20)
        tell_due(socket, session)
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
        tell(socket, messages.Offer(0, b"\x01", session=7))
        fault = hear(socket)
        assert isinstance(fault, messages.Fault)
        assert fault.session == 7
        tell(socket, session.open())
        session.receive(hear(socket))
        session.offer([1])
        tell_due(socket, session)
        assert session.receive(hear(socket))


def test_health_names_what_is_served(address: str) -> None:
    health = json.loads(get(address, "/healthz").text)
    assert health["ok"] is True
    assert health["model"] == MODEL
    assert health["protocol"] == messages.PROTOCOL_VERSION
    assert health["rows"] == {"is_invariant": True, "reason": "rows are read from a table", "gap_change": None}


def test_health_says_whether_an_emulated_model_kept_its_pace() -> None:
    pace = Pace(step_ms=1)
    with running(CloudSettings(port=0), lambda: pace_engine(table(MODEL), pace)) as cloud:
        health = json.loads(get(cloud.address, "/healthz").text)
    assert health["model"] == f"paced:{pace}:{MODEL}"
    assert health["pace"].keys() == {"num_passes", "overruns", "total_late_s"}
    assert health["pace"]["num_passes"] == 8  # a prompt and blocks, timed when the model was loaded


def test_the_vocabulary_can_be_asked_for(address: str) -> None:
    vocabulary = table(MODEL).vocabulary
    answer = json.loads(get(address, "/v1/vocabulary").text)
    assert answer == {"name": vocabulary.name, "tokens": list(vocabulary.tokens)}


@pytest.mark.parametrize(("asked", "num_shared"), [(8, 8), (5, 5), (10**9, 8), (0, 0), (-1, 0)])
def test_whether_vocabularies_fit_is_told_in_a_few_bytes(address: str, asked: int, num_shared: int) -> None:
    engine = table(MODEL)
    assert json.loads(get(address, f"/v1/terms?num_tokens={asked}").text) == {
        "num_tokens": num_shared,
        "digest": engine.vocabulary.digest(num_shared).hex(),
        "max_tokens": engine.limits.max_length,
    }


def test_terms_for_no_number_are_refused(address: str) -> None:
    assert get(address, "/v1/terms?num_tokens=many").status == get(address, "/v1/terms").status == 422
