from __future__ import annotations

import pytest

from skydraft.cloud.hub import Hub
from skydraft.config import CloudSettings
from skydraft.core import Exact, Prompt, SamplingParams, TensorSegment, TokenSegment
from skydraft.decoding.edge_session import EdgeSession
from skydraft.errors import CloudFault
from skydraft.protocol import messages
from skydraft.protocol.messages import FaultCode
from tests.linked import PROMPT, Linked, cloud_only, table

MODEL = "table:vocab=8,seed=5,order=2"
SAMPLING = SamplingParams(max_tokens=20)


def opening(number: int = 0, prompt: Prompt = PROMPT, sampling: SamplingParams = SAMPLING) -> messages.Open:
    return EdgeSession(table(MODEL).vocabulary, prompt, sampling, Exact(), number).open()


def the_fault(replies: list[tuple[int, messages.CloudMessage]]) -> messages.Fault:
    ((_, message),) = replies
    assert isinstance(message, messages.Fault)
    return message


def test_a_full_cloud_says_when_to_try_again() -> None:
    hub = Hub(table(MODEL, num_slots=2), CloudSettings())
    hub.receive(0, opening(0))
    hub.receive(0, opening(1))
    fault = the_fault(hub.receive(0, opening(2)))
    assert fault.code is FaultCode.BUSY
    assert fault.retry_after_s
    assert fault.session == 2
    assert hub.num_sessions == 2


def test_a_full_cloud_forgets_the_session_that_has_been_away_longest() -> None:
    hub = Hub(table(MODEL, num_slots=2), CloudSettings())
    for connection in (0, 1):
        hub.receive(connection, opening())
    hub.disconnect(1, now_s=1.0)
    hub.disconnect(0, now_s=2.0)
    ((_, opened),) = hub.receive(2, opening())
    assert isinstance(opened, messages.Opened)
    assert hub.num_sessions == 2
    hub.expire(now_s=1e6)
    assert hub.num_sessions == 1  # connection 2 is still there


def test_a_closed_session_gives_its_slot_back() -> None:
    hub = Hub(table(MODEL, num_slots=1), CloudSettings())
    for _ in range(3):
        ((_, opened),) = hub.receive(0, opening())
        assert isinstance(opened, messages.Opened)
        assert hub.receive(0, messages.Close(0)) == []
    assert hub.num_sessions == 0


def test_sessions_outlive_their_connection_for_the_grace_time() -> None:
    hub = Hub(table(MODEL), CloudSettings(grace_s=10))
    hub.receive(0, opening())
    hub.disconnect(0, now_s=100.0)
    hub.expire(now_s=109.0)
    assert hub.num_sessions == 1
    hub.expire(now_s=111.0)
    assert hub.num_sessions == 0


def test_a_resumed_session_leaves_the_connection_that_hangs() -> None:
    linked = Linked(EdgeSession(table(MODEL).vocabulary, PROMPT, SAMPLING, Exact()), table(MODEL))
    linked.open()
    linked.session.disconnect()
    linked.connection = 1  # the cloud has not noticed that connection 0 is gone
    linked.open()
    linked.send(linked.session.credit(20))
    linked.settle()
    assert list(linked.session.token_ids) == cloud_only(table(MODEL), SAMPLING)
    linked.hub.disconnect(0, now_s=0.0)
    linked.hub.expire(now_s=1e6)
    assert linked.hub.num_sessions == 1


def test_an_unknown_resume_key_is_answered_by_an_empty_one() -> None:
    hub = Hub(table(MODEL), CloudSettings())
    resume = messages.Resume(b"not a key", 3, b"12345678")
    ((_, opened),) = hub.receive(0, messages.Open(1, 0, opening().vocabulary, SAMPLING, Exact(), resume=resume))
    assert isinstance(opened, messages.Opened)
    assert opened.resume_key == b""
    assert hub.num_sessions == 0


def test_a_device_that_went_another_way_starts_afresh() -> None:
    hub = Hub(table(MODEL), CloudSettings())
    ((_, opened),) = hub.receive(0, opening())
    assert isinstance(opened, messages.Opened)
    hub.disconnect(0, 0.0)
    resume = messages.Resume(opened.resume_key, 3, b"12345678")
    ((_, again),) = hub.receive(1, messages.Open(1, 0, opening().vocabulary, SAMPLING, Exact(), resume=resume))
    assert isinstance(again, messages.Opened)
    assert again.resume_key == b""
    assert hub.num_sessions == 0


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (messages.Draft(0, b"\x01"), FaultCode.PROTOCOL, "session 0 is not open"),
        (messages.Generate(5, 3), FaultCode.PROTOCOL, "session 3 is not open"),
        (opening(sampling=SamplingParams(max_tokens=5000)), FaultCode.LIMIT, "5000 tokens .* at most 4096"),
        (
            opening(prompt=Prompt((TensorSegment("log_mel", "float32", (1, 1), bytes(4)),))),
            FaultCode.PROMPT,
            "reads text only",
        ),
        (opening(prompt=Prompt((TokenSegment((1,) * 5000),))), FaultCode.LIMIT, "5000"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    message: messages.EdgeMessage, code: FaultCode, words: str
) -> None:
    hub = Hub(table(MODEL), CloudSettings())
    fault = the_fault(hub.receive(0, message))
    assert fault.code is code
    with pytest.raises(CloudFault, match=words):
        raise CloudFault(fault.code, fault.sentence)
    assert hub.num_sessions == 0


def test_opening_a_session_twice_ends_it() -> None:
    hub = Hub(table(MODEL), CloudSettings())
    hub.receive(0, opening())
    assert the_fault(hub.receive(0, opening())).code is FaultCode.PROTOCOL
    assert hub.num_sessions == 0


def test_a_slot_that_overflows_takes_no_other_session_with_it() -> None:
    engine = table(MODEL, num_slots=2)
    small = Hub(engine, CloudSettings())
    long = Prompt((TokenSegment((1,) * 4090),))
    small.receive(0, opening(0, long))
    small.receive(0, opening(1))
    small.receive(0, messages.Generate(20, 0))
    small.receive(0, messages.Generate(20, 1))
    replies = []
    while step := small.step():
        replies += step
    faults = [message for _, message in replies if isinstance(message, messages.Fault)]
    assert [fault.session for fault in faults] == [0]
    assert sum(isinstance(message, messages.Tokens) and message.session == 1 for _, message in replies) == 20
