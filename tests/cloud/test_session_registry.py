from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from skydraft.cloud.access.keys import Holder, KeyGrant
from skydraft.cloud.metrics import Metrics
from skydraft.cloud.session_registry import SessionRegistry
from skydraft.config import CloudSettings
from skydraft.core import Exact, Grammar, Prompt, SamplingParams, TensorSegment, TokenSegment
from skydraft.decoding.cloud_session import CloudSession
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.emulated.words import WordTokenizer
from skydraft.errors import CloudFault
from skydraft.protocol import codec, messages, packing
from skydraft.protocol.messages import FaultCode
from skydraft.scheduling.prefix_cache import KEPT_S
from skydraft.text.token_reader import TokenReader
from tests.cloud.running import counted
from tests.linked import PROMPT, Linked, cloud_only, table

MODEL = "table:vocab=8,seed=5,order=2"
SAMPLING = SamplingParams(max_tokens=20)


def opening(number: int = 0, prompt: Prompt = PROMPT, sampling: SamplingParams = SAMPLING) -> messages.Open:
    return EdgeSession(table(MODEL).vocabulary, prompt, sampling, Exact(), number).open()


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def holder(name: str, **limits: int) -> Holder:
    return Holder(name, replace(KeyGrant(), **limits))


def answered(registry: SessionRegistry, connection: int, message: messages.Open) -> messages.Opened:
    ((_, answer),) = registry.receive(connection, message)
    assert isinstance(answer, messages.Opened)
    return answer


def opened(registry: SessionRegistry, connection: int, number: int = 0, prompt: Prompt = PROMPT) -> messages.Opened:
    return answered(registry, connection, opening(number, prompt))


def resuming(key: bytes, length: int = 0, digest: bytes = packing.log_digest(())) -> messages.Open:
    resume = messages.Resume(key, length, digest)
    return messages.Open(messages.PROTOCOL_VERSION, 0, opening().vocabulary, SAMPLING, "exact", resume=resume)


def run_dry(registry: SessionRegistry) -> list[tuple[int, messages.CloudMessage]]:
    """Until nothing waits any more."""
    replies = []
    while registry.is_busy:
        replies += registry.step()
    return replies


def the_fault(replies: list[tuple[int, messages.CloudMessage]]) -> messages.Fault:
    ((_, message),) = replies
    assert isinstance(message, messages.Fault)
    return message


def test_a_cloud_answers_in_the_version_of_the_device() -> None:
    registry = SessionRegistry(table(MODEL), CloudSettings())
    for connection, version in enumerate((messages.OLDEST_VERSION, messages.PROTOCOL_VERSION)):
        answer = answered(registry, connection, replace(opening(), version=version))
        assert answer.version == version
        registry.disconnect(connection)
        for number, key in enumerate((answer.resume_key, b"unknown")):
            resumed = answered(registry, connection, replace(resuming(key), session=number, version=version))
            assert resumed.version == version


def test_a_full_cloud_says_when_to_try_again() -> None:
    registry = SessionRegistry(table(MODEL), CloudSettings(max_sessions=2))
    for number in (0, 1):
        opened(registry, 0, number)
    fault = the_fault(registry.receive(0, opening(2)))
    assert fault.code is FaultCode.BUSY
    assert fault.retry_after_s
    assert fault.session == 2
    assert registry.num_sessions == 2


def test_a_full_cloud_forgets_the_session_that_has_been_away_longest() -> None:
    clock = Clock()
    registry = SessionRegistry(table(MODEL), CloudSettings(max_sessions=2), clock=clock)
    keys = [opened(registry, connection).resume_key for connection in (0, 1)]
    for connection, clock.now_s in ((1, 1.0), (0, 2.0)):
        registry.disconnect(connection)
    opened(registry, 2)
    assert registry.num_sessions == 2
    known = [answered(registry, connection, resuming(key)).resume_key for connection, key in enumerate(keys, 3)]
    assert known == [keys[0], b""]


def test_a_prompt_that_nobody_can_read_costs_no_session_its_place() -> None:
    metrics = Metrics()
    registry = SessionRegistry(table(MODEL, num_slots=1), CloudSettings(max_sessions=1), metrics)
    key = opened(registry, 0).resume_key
    run_dry(registry)
    registry.disconnect(0)
    for prompt, code in ((TokenSegment((1,) * 5000), FaultCode.LIMIT), (TokenSegment(()), FaultCode.PROMPT)):
        assert the_fault(registry.receive(1, opening(prompt=Prompt((prompt,))))).code is code
    assert answered(registry, 1, resuming(key)).resume_key == key
    assert counted(metrics)["skydraft_evictions_total"] == 0


def test_texts_take_no_more_memory_than_they_may() -> None:
    registry = SessionRegistry(table(MODEL + ",tensors=1"), CloudSettings(max_state_bytes=2**26))
    mib4 = Prompt((TokenSegment((1,)), TensorSegment("log_mel", "float32", (2**20,), bytes(2**22))))
    num_opened = 0
    while isinstance((replies := registry.receive(0, opening(num_opened, mib4)))[0][1], messages.Opened):
        num_opened += 1
    assert num_opened == 15  # and not 16: ids take place too
    fault = the_fault(replies)
    assert (fault.code, bool(fault.retry_after_s)) == (FaultCode.BUSY, True)
    registry.receive(0, messages.Close(3))
    opened(registry, 0, 99, prompt=mib4)


def test_a_closed_session_gives_its_slot_and_its_place_back() -> None:
    registry = SessionRegistry(table(MODEL, num_slots=1), CloudSettings(max_sessions=1))
    for _ in range(3):
        opened(registry, 0)
        run_dry(registry)
        assert registry.receive(0, messages.Close(0)) == []
    assert registry.num_sessions == 0


def test_sessions_outlive_their_connection_for_the_grace_time() -> None:
    clock = Clock(100.0)
    registry = SessionRegistry(table(MODEL), CloudSettings(grace_s=10), clock=clock)
    opened(registry, 0)
    registry.disconnect(0)
    for clock.now_s, num_left in ((109.0, 1), (111.0, 0)):
        assert registry.expire() == []
        assert registry.num_sessions == num_left


def test_a_registry_that_drains_refuses_new_texts_and_lets_open_ones_end() -> None:
    registry = SessionRegistry(table(MODEL), CloudSettings())
    resume_key = opened(registry, 0).resume_key
    registry.begin_drain()
    for message in (opening(1), resuming(resume_key)):
        fault = the_fault(registry.receive(1, message))
        assert fault.code is FaultCode.BUSY
        assert fault.retry_after_s
    assert registry.receive(0, messages.Generate(3)) == []
    assert sum(isinstance(message, messages.Tokens) for _, message in run_dry(registry)) == 3


def test_a_session_of_which_nothing_is_asked_leaves_and_may_come_back() -> None:
    clock = Clock()
    registry = SessionRegistry(table(MODEL), CloudSettings(idle_s=30, grace_s=10), clock=clock)
    keys = [opened(registry, 0, number).resume_key for number in (0, 1)]
    run_dry(registry)
    clock.now_s = 20.0
    registry.receive(0, messages.Generate(2, 1))
    run_dry(registry)
    clock.now_s = 31.0
    fault = the_fault(registry.expire())
    assert (fault.session, fault.code, fault.retry_after_s) == (0, FaultCode.BUSY, 0.0)
    assert answered(registry, 0, resuming(keys[0])).resume_key == keys[0]


def test_a_device_that_waits_for_its_prompt_to_be_read_is_told_that_it_is_worked_for() -> None:
    clock = Clock(100.0)
    registry = SessionRegistry(
        table(MODEL), CloudSettings(max_positions=16, prefill_tokens=2), clock=clock, reassure_s=10
    )
    opened(registry, 0, prompt=Prompt((TokenSegment((1,) * 40),)))
    opened(registry, 0, 1)
    registry.receive(0, messages.Generate(1, 0))
    told_s = []
    while not (replies := registry.step()):
        clock.now_s += 4
        for connection, message in registry.reassure():
            assert (connection, message) == (0, messages.Working(0))  # of session 1 nothing was asked
            told_s.append(clock.now_s)
    assert told_s == [112.0, 124.0, 136.0, 148.0, 160.0, 172.0, 184.0]
    assert [type(message) for _, message in replies] == [messages.Tokens]
    clock.now_s += 100
    assert registry.reassure() == []


def test_a_resumed_session_leaves_the_connection_that_hangs() -> None:
    linked = Linked(EdgeSession(table(MODEL).vocabulary, PROMPT, SAMPLING, Exact()), table(MODEL))
    linked.open()
    linked.session.disconnect()
    linked.connection = 1  # the cloud has not noticed that connection 0 is gone
    linked.open()
    linked.session.give_credit(20)
    linked.send_due()
    linked.settle()
    assert list(linked.session.token_ids) == cloud_only(table(MODEL), SAMPLING)
    linked.registry.disconnect(0)
    linked.now_s += 100
    linked.registry.expire()
    assert linked.registry.num_sessions == 1


def test_a_resume_key_opens_only_its_own_keys_session() -> None:
    registry = SessionRegistry(table(MODEL), CloudSettings())
    for connection, name in enumerate(["alice", "bob", "alice"]):
        registry.connect(connection, holder(name))
    resume_key = opened(registry, 0).resume_key
    registry.disconnect(0)
    unknown = registry.receive(1, resuming(b"no such session!"))
    assert registry.receive(1, resuming(resume_key)) == unknown
    assert answered(registry, 2, resuming(resume_key)).resume_key == resume_key


def test_a_key_has_no_more_sessions_than_it_may() -> None:
    registry = SessionRegistry(table(MODEL), CloudSettings())
    for connection, name in enumerate(["alice", "bob"]):
        registry.connect(connection, holder(name, max_sessions=2))
    bobs = opened(registry, 1).resume_key
    for number in (0, 1):
        opened(registry, 0, number)
    fault = the_fault(registry.receive(0, opening(2)))
    assert fault.code is FaultCode.BUSY
    assert "key alice has 2 sessions" in fault.sentence
    registry.disconnect(1)
    registry.disconnect(0)
    registry.connect(2, holder("alice", max_sessions=2))
    opened(registry, 2)  # in place of its own
    registry.connect(3, holder("bob"))
    assert answered(registry, 3, resuming(bobs)).resume_key == bobs


def test_a_key_writes_no_more_tokens_a_minute_than_it_may_and_then_goes_on() -> None:
    linked = Linked(EdgeSession(table(MODEL).vocabulary, PROMPT, SAMPLING, Exact()), table(MODEL))
    alice = holder("alice", tokens_per_minute=6)
    linked.registry.connect(0, alice)
    linked.open()
    waits_s: list[float] = []
    while True:
        linked.session.give_credit(20)
        linked.send_due()
        with suppress(CloudFault):
            linked.settle()
        if linked.session.is_complete:
            break
        refused = the_fault(linked.registry.receive(linked.connection, opening(5)))
        assert "key alice has used its 6 tokens a minute" in refused.sentence
        assert refused.retry_after_s is not None
        waits_s.append(refused.retry_after_s)
        linked.now_s += refused.retry_after_s
        linked.cut()
        linked.registry.connect(linked.connection, alice)
        linked.open()
    assert list(linked.session.token_ids) == cloud_only(table(MODEL), SAMPLING)
    assert linked.registry.num_sessions == 1
    assert 130 <= linked.now_s <= 160  # 14 of 20 tokens had to be waited for, 10 s each
    assert all(6 <= wait_s <= 16 for wait_s in waits_s)


def test_a_key_that_wrote_without_a_limit_goes_on_under_its_first() -> None:
    registry = SessionRegistry(table(MODEL), CloudSettings())
    registry.connect(0, holder("alice"))
    opened(registry, 0)
    registry.receive(0, messages.Generate(20))
    run_dry(registry)
    registry.connect(1, holder("alice", tokens_per_minute=6))
    opened(registry, 1)


def test_a_device_accepts_the_fault_of_a_key_that_owes_days() -> None:
    registry = SessionRegistry(table(MODEL, num_slots=80), CloudSettings(max_positions=4096), clock=Clock())
    registry.connect(0, holder("alice", max_sessions=100, tokens_per_minute=1))
    for number in range(80):
        opened(registry, 0, number)
    run_dry(registry)
    right = packing.pack(cloud_only(table(MODEL), SAMPLING), 8)
    for number in range(80):
        registry.receive(0, messages.Offer(0, right, number))
    run_dry(registry)
    fault = the_fault(registry.receive(0, opening(99)))
    assert fault.retry_after_s is not None
    assert fault.retry_after_s > 86400
    heard = codec.decode_cloud_message(codec.encode(fault))
    assert isinstance(heard, messages.Fault)
    assert heard.retry_after_s == 86400


def test_a_key_has_no_more_offers_waiting_than_it_may() -> None:
    registry = SessionRegistry(table(MODEL), CloudSettings())
    registry.connect(0, holder("alice", max_in_flight=2))
    for number in range(3):
        opened(registry, 0, number)
    for number in range(2):
        assert registry.receive(0, messages.Offer(0, b"\x01", number)) == []
    fault = the_fault(registry.receive(0, messages.Offer(0, b"\x01", 2)))
    assert (fault.code, fault.session) == (FaultCode.BUSY, 2)
    assert "2 offers of this key" in fault.sentence
    run_dry(registry)
    assert registry.receive(0, messages.Offer(1, b"\x01", 1)) == []


def test_work_that_waits_is_counted_from_when_it_was_asked_for() -> None:
    clock, metrics = Clock(), Metrics()
    registry = SessionRegistry(table(MODEL), CloudSettings(), metrics, clock)
    opened(registry, 0)
    run_dry(registry)
    clock.now_s = 50.0
    registry.receive(0, messages.Offer(0, b"\x01"))
    clock.now_s = 53.0
    run_dry(registry)
    counts = counted(metrics)
    assert counts["skydraft_queue_seconds_sum"] == 3.0
    assert counts["skydraft_tokens_offered_total"] == 1
    assert counts["skydraft_sessions"] == 1


def test_an_unknown_resume_key_is_answered_by_an_empty_one() -> None:
    registry = SessionRegistry(table(MODEL), CloudSettings())
    assert answered(registry, 0, resuming(b"not a key", 3, b"12345678")).resume_key == b""
    assert registry.num_sessions == 0


def test_a_device_that_went_another_way_starts_afresh() -> None:
    registry = SessionRegistry(table(MODEL), CloudSettings())
    key = opened(registry, 0).resume_key
    registry.disconnect(0)
    assert answered(registry, 1, resuming(key, 3, b"12345678")).resume_key == b""
    assert registry.num_sessions == 0


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (messages.Offer(0, b"\x01"), FaultCode.PROTOCOL, "session 0 is not open"),
        (messages.Generate(5, 3), FaultCode.PROTOCOL, "session 3 is not open"),
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
    registry = SessionRegistry(table(MODEL), CloudSettings())
    fault = the_fault(registry.receive(0, message))
    assert fault.code is code
    with pytest.raises(CloudFault, match=words):
        raise CloudFault(fault.code, fault.sentence)
    assert registry.num_sessions == 0


def test_opening_a_session_twice_ends_it() -> None:
    registry = SessionRegistry(table(MODEL), CloudSettings())
    registry.receive(0, opening())
    assert the_fault(registry.receive(0, opening())).code is FaultCode.PROTOCOL
    assert registry.num_sessions == 0


def test_a_bug_ends_the_session_that_it_met_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    registry = SessionRegistry(table(MODEL), CloudSettings(), metrics)
    for number in (0, 1):
        opened(registry, 0, number)

    def fail(*_: object) -> None:
        raise KeyError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(CloudSession, "receive", fail)
        fault = the_fault(registry.receive(0, messages.Generate(5, 1)))
    assert (fault.code, fault.session) == (FaultCode.INTERNAL, 1)
    assert "a bug" not in fault.sentence
    assert counted(metrics)["skydraft_faults_total:internal"] == 1
    assert registry.num_sessions == 1
    assert registry.receive(0, messages.Generate(5, 0)) == []


def test_a_text_ends_where_its_slot_is_full_and_the_device_is_told_where_that_is() -> None:
    small = SessionRegistry(table(MODEL, num_slots=2), CloudSettings())
    long = Prompt((TokenSegment((1,) * 4090),))
    (_, opened), *_ = small.receive(0, opening(0, long))
    assert isinstance(opened, messages.Opened)
    assert opened.limits.max_tokens == 6
    small.receive(0, opening(1))
    small.receive(0, messages.Generate(20, 0))
    small.receive(0, messages.Generate(20, 1))
    written = Counter(message.session for _, message in run_dry(small) if isinstance(message, messages.Tokens))
    assert written == {0: 6, 1: 20}
    assert small.num_sessions == 2


def test_a_prompt_that_leaves_no_room_for_a_text_is_refused_with_both_numbers() -> None:
    small = SessionRegistry(table(MODEL), CloudSettings())
    ((_, fault),) = small.receive(0, opening(0, Prompt((TokenSegment((1,) * 4096),))))
    assert isinstance(fault, messages.Fault)
    assert fault.code == FaultCode.LIMIT
    assert "4096 tokens and a slot of this cloud has room for 4096" in fault.sentence


@pytest.mark.parametrize(("stop", "is_spent"), [("da bu da", False), ("nothing", True)])
def test_tokens_of_a_stop_string_are_not_counted_against_a_key(stop: str, is_spent: bool) -> None:
    engine = table(MODEL)
    registry = SessionRegistry(
        engine, CloudSettings(), clock=Clock(), reader=TokenReader(WordTokenizer(engine.vocabulary))
    )
    registry.connect(0, holder("alice", tokens_per_minute=8))
    sampling = SamplingParams(max_tokens=8, temperature=2.0, stop=(stop,))  # be de de be bo da bu da
    answered(registry, 0, opening(sampling=sampling))
    registry.receive(0, messages.Generate(8))
    messages_of_text = [message for _, message in run_dry(registry) if isinstance(message, messages.Tokens)]
    assert [message.is_end for message in messages_of_text] == [False] * 7 + [not is_spent]
    fault = registry.receive(0, opening(1))[0][1]
    assert isinstance(fault, messages.Fault) == is_spent


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (replace(SAMPLING, stop=("a",)), "leave stop strings and the grammar out"),
        (replace(SAMPLING, grammar=Grammar("regex", "a+")), "leave stop strings and the grammar out"),
        (replace(SAMPLING, grammar=Grammar("lark", "start: foo")), "the lark grammar cannot be used"),
    ],
)
def test_a_text_that_cannot_be_written_as_it_is_asked_to_is_refused(sampling: SamplingParams, words: str) -> None:
    engine = table(MODEL)
    reader = None if "leave" in words else TokenReader(WordTokenizer(engine.vocabulary))
    registry = SessionRegistry(engine, CloudSettings(), reader=reader)
    registry.prepare(opening(sampling=sampling))
    fault = the_fault(registry.receive(0, opening(sampling=sampling)))
    assert fault.code is FaultCode.SAMPLING
    assert words in fault.sentence


def test_log_probabilities_take_memory_too() -> None:
    settings = CloudSettings(max_state_bytes=2**26, max_sessions=10**4)

    def num_that_fit(sampling: SamplingParams) -> int:
        registry = SessionRegistry(table(MODEL), settings)
        for number in range(10**4):
            ((_, answer),) = registry.receive(0, opening(number, sampling=sampling))
            if isinstance(answer, messages.Fault):
                assert answer.code is FaultCode.BUSY
                return number
        raise AssertionError("all of them fit")

    plain = SamplingParams(max_tokens=4000)
    assert num_that_fit(replace(plain, top_logprobs=20)) < num_that_fit(plain) / 5


LONG_PROMPT = Prompt((TokenSegment(tuple(index % 7 for index in range(100))),))


def test_what_was_read_of_a_prompt_is_no_other_keys_and_not_of_who_takes_over_its_name() -> None:
    metrics, clock = Metrics(), Clock()
    registry = SessionRegistry(table(MODEL), CloudSettings(), metrics, clock)
    holders = [holder("ann"), holder("bob"), holder("ann"), holder("ann")._replace(sha256="another")]
    num_reused = []
    for connection, each in enumerate(holders):
        registry.connect(connection, each)
        before = counted(metrics)["skydraft_prompt_tokens_reused_total"]
        opened(registry, connection, prompt=LONG_PROMPT)
        run_dry(registry)
        num_reused.append(counted(metrics)["skydraft_prompt_tokens_reused_total"] - before)
        registry.disconnect(connection)
    assert num_reused == [0, 0, 96, 0]
    assert counted(metrics)["skydraft_prompt_tokens_read_total"] == 4 * 100 - 96
    assert counted(metrics)["skydraft_prefix_cache_bytes"] > 0
    for clock.now_s in (100, 101 + KEPT_S):  # the texts are forgotten, and then what was read of them
        registry.expire()
    assert counted(metrics)["skydraft_prefix_cache_bytes"] == 0
    registry.connect(9, holder("ann"))
    opened(registry, 9, prompt=LONG_PROMPT)
    run_dry(registry)
    assert counted(metrics)["skydraft_prompt_tokens_reused_total"] == 96


def test_a_cloud_without_a_prefix_cache_reads_each_prompt_whole() -> None:
    metrics = Metrics()
    registry = SessionRegistry(table(MODEL), CloudSettings(max_prefix_bytes=0), metrics)
    for number in range(2):
        opened(registry, 1, number, LONG_PROMPT)
        run_dry(registry)
    registry.expire()
    assert counted(metrics)["skydraft_prompt_tokens_reused_total"] == 0


def test_a_device_that_asks_for_it_is_told_what_of_its_prompt_was_read_before() -> None:
    registry = SessionRegistry(table(MODEL), CloudSettings())
    told = []
    for connection, wants in enumerate((True, True, False)):
        registry.connect(connection, holder("ann"), wants_prompt_read=wants)
        opened(registry, connection, number=7, prompt=LONG_PROMPT)
        told.append(run_dry(registry))
    assert told == [[], [(1, messages.PromptRead(96, 7))], []]
    registry.connect(3, holder("ann"), wants_prompt_read=True)
    opened(registry, 3, prompt=LONG_PROMPT)
    registry.disconnect(3)  # before its prompt is read
    assert run_dry(registry) == []
