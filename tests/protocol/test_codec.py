import tracemalloc
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from skydraft.core import AcceptanceRule, Exact, MinProb, Rank, Rejection, SamplingParams, parse_rule
from skydraft.errors import RemoteProtocolError, VersionMismatch
from skydraft.protocol import codec, messages, packing
from skydraft.protocol.limits import (
    MAX_END_IDS,
    MAX_IN_FLIGHT,
    MAX_NAME_CHARS,
    MAX_SEGMENTS,
    MAX_SENTENCE_CHARS,
    MAX_TEXT_TOKENS,
    MAX_VOCABULARY,
    FrameLimits,
)
from skydraft.protocol.messages import FaultCode, Message
from tests.effort import effort_of
from tests.protocol import strategies

MARK = messages.VocabularyMark(151_936, bytes(range(16)))
MARK_HEX = "92 ce00025180 c410000102030405060708090a0b0c0d0e0f"
LIMITS = messages.Limits(2048, 64, 8)
EMPTY_LOG = packing.log_digest([])


def ids(*token_ids: int) -> bytes:
    return packing.pack(token_ids, 18)


GOLDEN: list[tuple[Message, str]] = [
    (
        messages.Open(
            2,
            0,
            MARK,
            SamplingParams(max_tokens=64, end_ids=(151_645,), seed=7),
            "exact",
            (messages.WireTokens(ids(1, 2, 3)),),
        ),
        f"97 01 02 00 {MARK_HEX} 93 40 91ce0002505d 07 a56578616374 91 93 00 c407 0000400020000c c2",
    ),
    (
        messages.Open(
            2,
            3,
            MARK,
            SamplingParams(temperature=0.5, top_p=0.75, top_k=40, seed=2**64 - 1),
            "rejection:8,64",
            (
                messages.WireTokens(ids(9), is_evidence=True),
                messages.WireTensor("log_mel", "float16", (2, 1), b"\x00\x3c\x00\xbc"),
            ),
        ),
        f"97 01 02 03 {MARK_HEX} 96 cc80 90 cfffffffffffffffff cb3fe0000000000000 cb3fe8000000000000 28"
        " ae72656a656374696f6e3a382c3634"
        " 92 93 00 c403 000240 c3 95 01 a76c6f675f6d656c a7666c6f61743136 920201 c404 003c00bc",
    ),
    (
        messages.Open(
            2, 0, MARK, SamplingParams(), "prob:0.1", resume=messages.Resume(b"key", 2, packing.log_digest([5, 6]))
        ),
        f"98 01 02 00 {MARK_HEX} 90 a870726f623a302e31 90 93 c4036b6579 02 c408cb95b055958168f9",
    ),
    (
        messages.Open(
            3,
            0,
            MARK,
            SamplingParams(min_p=0.5, presence_penalty=1.0, frequency_penalty=-1.0, logit_bias=((5, 2.0), (300, -0.5))),
            "exact",
            (messages.WireTokens(b""),),
        ),
        f"97 01 03 00 {MARK_HEX} 9b cc80 90 00 cb0000000000000000 cb3ff0000000000000 00 cb3fe0000000000000"
        " cb3ff0000000000000 cbbff0000000000000 cb3ff0000000000000 92 92 05 cb4000000000000000"
        " 92 cd012c cbbfe0000000000000 a56578616374 91 93 00 c400 c2",
    ),
    (messages.Offer(200, ids(*range(1, 9))), "93 02 ccc8 c412 0000400020000c0004000140006000 1c0008"),
    (messages.Offer(0, ids(5, 6), 3, 1, b"\0"), "96 02 00 c405 0001400060 03 01 c40100"),
    (messages.Offer(2, b"", packed_probs=b"\1\2"), "97 02 02 c400 00 00 c400 c4020102"),
    (messages.Generate(128), "92 03 cc80"),
    (messages.Generate(128, 1), "93 03 cc80 01"),
    (messages.Close(), "91 04"),
    (messages.Close(5), "92 04 05"),
    (
        messages.Opened(2, 0, b"key", 0, EMPTY_LOG, MARK, LIMITS, "large"),
        f"99 05 02 00 c4036b6579 00 c408e4a6a0577479b2b4 {MARK_HEX} 93 cd0800 40 08 a56c61726765",
    ),
    (
        messages.Opened(2, 7, b"", 0, EMPTY_LOG, messages.VocabularyMark(300, b"digest-1"), LIMITS),
        "98 05 02 07 c400 00 c408e4a6a0577479b2b4 92 cd012c c4086469676573742d31 93 cd0800 40 08",
    ),
    (messages.Verdict(3), "92 06 03"),
    (messages.Verdict(208, 151_645), "93 06 ccd0 ce0002505d"),
    (messages.Verdict(5, 7, 1, 2), "95 06 05 07 01 02"),
    (messages.Verdict(5, is_final=False), "96 06 05 c0 00 c0 c2"),
    (messages.Tokens(4, ids(100, 200)), "93 07 04 c405 0019000c80"),
    (messages.Tokens(4, ids(100), 2), "94 07 04 c403 001900 02"),
    (messages.Fault(FaultCode.VERSION, "no"), "93 08 a776657273696f6e a26e6f"),
    (messages.Fault(FaultCode.BUSY, "full", 0, 1.5), "95 08 a462757379 a466756c6c 00 cb3ff8000000000000"),
    (messages.Working(), "91 09"),
    (messages.Working(3), "92 09 03"),
    (messages.PromptRead(200), "92 0a ccc8"),
    (messages.PromptRead(64, 3), "93 0a 40 03"),
]
IS_EDGE = (messages.Open, messages.Offer, messages.Generate, messages.Close)


def tag_of(kind: type[Message]) -> int:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, int)
    return tag


def decode_any(data: bytes, limits: FrameLimits = codec.DEFAULT_LIMITS) -> Message:
    """Decode as the side that may receive a message with this tag."""
    is_edge = len(data) > 1 and data[1] <= tag_of(messages.Close)
    return codec.decode_edge_message(data, limits) if is_edge else codec.decode_cloud_message(data, limits)


def array(*values: object) -> bytes:
    return msgspec.msgpack.encode(values)


@pytest.mark.parametrize(
    ("message", "data"), GOLDEN, ids=[f"{type(m).__name__}-{i}" for i, (m, _) in enumerate(GOLDEN)]
)
def test_golden_bytes(message: Message, data: str) -> None:
    assert codec.encode(message).hex() == data.replace(" ", "")
    assert decode_any(bytes.fromhex(data)) == message


def test_an_offer_of_8_tokens_takes_24_bytes() -> None:
    assert len(codec.encode(messages.Offer(200, packing.pack([2**18 - 1] * 8, 18)))) == 24


@given(strategies.edge_messages)
def test_every_message_of_a_device_comes_back(message: messages.EdgeMessage) -> None:
    assert codec.decode_edge_message(codec.encode(message)) == message


@given(strategies.cloud_messages)
def test_every_message_of_a_cloud_comes_back(message: messages.CloudMessage) -> None:
    assert codec.decode_cloud_message(codec.encode(message)) == message


@pytest.mark.parametrize("rule", [Exact(), Rejection(), Rejection(1, 65536), Rank(3), MinProb(1 / 3), MinProb(1e-9)])
def test_rules_travel_exactly(rule: AcceptanceRule) -> None:
    sent = messages.Open(2, 0, MARK, SamplingParams(), str(rule), (messages.WireTokens(b""),))
    received = codec.decode_edge_message(codec.encode(sent))
    assert isinstance(received, messages.Open)
    assert parse_rule(received.rule) == rule


# What may not be


@pytest.mark.parametrize("data", [data for _, data in GOLDEN])
def test_every_beginning_of_a_message_is_refused(data: str) -> None:
    whole = bytes.fromhex(data)
    for length in range(len(whole)):
        with pytest.raises(RemoteProtocolError):
            decode_any(whole[:length])


@pytest.mark.parametrize("data", [data for _, data in GOLDEN])
def test_bytes_after_a_message_are_refused(data: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_any(bytes.fromhex(data) + b"\0")


@pytest.mark.parametrize(("message", "data"), GOLDEN)
def test_each_side_refuses_what_only_the_other_sends(message: Message, data: str) -> None:
    is_edge = isinstance(message, IS_EDGE)
    wrong = codec.decode_cloud_message if is_edge else codec.decode_edge_message
    name = "cloud" if is_edge else "device"
    with pytest.raises(RemoteProtocolError, match=f"sent {type(message).__name__}, which a {name} does not send"):
        wrong(bytes.fromhex(data))


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_a_message_or_refused(data: bytes) -> None:
    for decode in (codec.decode_edge_message, codec.decode_cloud_message):
        refused_or_message(decode, data)


msgpack_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=9)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.integers(0, 9), st.lists(msgpack_values, max_size=8))
def test_arbitrary_fields_are_a_message_or_refused(tag: int, fields: list[object]) -> None:
    for decode in (codec.decode_edge_message, codec.decode_cloud_message):
        refused_or_message(decode, array(tag, *fields))


@settings(max_examples=200)
@given(st.one_of(strategies.edge_messages, strategies.cloud_messages), st.data())
def test_damaged_messages_are_a_message_or_refused(message: Message, data: st.DataObject) -> None:
    frame = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(frame) - 1))
        frame[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not frame:
            return
    for decode in (codec.decode_edge_message, codec.decode_cloud_message):
        refused_or_message(decode, bytes(frame))


def refused_or_message(decode: Callable[[bytes], Message], data: bytes) -> None:
    try:
        message = decode(data)
    except RemoteProtocolError as error:
        sentence = str(error)
        assert 10 < len(sentence) < 600
        assert "\n" not in sentence
    else:
        assert decode(codec.encode(message)) == message


OPEN: tuple[object, ...] = (1, 2, 0, [151_936, b"d" * 16], [], "exact", [[0, b""]])


def with_field(fields: tuple[object, ...], index: int, value: object) -> bytes:
    return array(*fields[:index], value, *fields[index + 1 :])


REFUSED = [
    (b"", "0 bytes that begin with nothing"),
    (b"\x81\x01\x02", "begin with 8101; a message begins with 90 to 9f"),
    (b"\xdc\x00\x01\x04", "begin with dc00"),
    (array(11), "the cloud sent a message with tag 11"),
    (array(0), "the device sent a message with tag 0"),
    (array(2, -1, b"a"), "Offer, which has a wrong start: Expected int >= 0"),
    (array(2, 2**20 + 1, b"a"), "wrong start: Expected int <= 1048576"),
    (array(2, 0, "a"), "wrong packed_ids: Expected bytes, got str"),
    (array(2, 0, b""), "no tokens"),
    (array(2, 0, b"abc", 0, 4), "4 tokens are forced and has 3 bytes"),
    (array(2, 0, b"a", 0, 0, b"\0", b"\0"), "a tree and has draft distributions"),
    (array(2, 0, b"a", 0, 0, b"\0" * 900), "number of bytes of a tree is 900"),
    (array(2, 0, b"a", 0, 0, b"", b"\0" * 4097), "draft distributions is 4097 and this side takes 4096"),
    (array(2, 0, b"a" * 3000), "length of an offer is 1000 and this side takes 256"),
    (array(2, 0, b"a", 2**31), "wrong session"),
    (array(2, 0, b"a", 0, 0, b"", b"", 1), "Offer, which cannot be read: Expected array of at most length 6, got 7"),
    (array(3, True), "wrong up_to: Expected int, got bool"),
    (array(5, 2, 0, b"", 0, b"d" * 7, [1, b"d" * 8], [1, 1, 1]), "wrong digest"),
    (array(5, 2, 0, b"k" * 65, 0, b"d" * 8, [1, b"d" * 8], [1, 1, 1]), "wrong resume_key"),
    (array(5, 2, 0, b"", 0, b"d" * 8, [0, b"d" * 8], [1, 1, 1]), "wrong vocabulary: Expected int >= 1"),
    (array(5, 2, 0, b"", 0, b"d" * 8, [1, b"d" * 8], [1, 1, 1], "a\x1b[2J"), "control characters"),
    (array(6, 0, 3), "a last token and a log of length 0"),
    (array(6, 1, 2**24), "wrong token_id"),
    (array(7, 0, b""), "Tokens has no tokens"),
    (array(8, "nonsense", "x"), "wrong code: Invalid enum value 'nonsense'"),
    (array(8, "busy", "a\nb"), "the sentence of a fault has control characters"),
    (array(8, "busy", "a" * (MAX_SENTENCE_CHARS + 1)), "wrong sentence"),
    (array(8, "busy", "a", 0, float("nan")), "wrong retry_after_s"),
    (array(8, "busy", "a", 0, float("inf")), "wrong retry_after_s"),
    (array(8, "busy", "a", 0, -1.0), "wrong retry_after_s"),
    (b"\x93\x08\xa4busy\xa2\xff\xff", "Fault, which cannot be read: a text that is not UTF-8"),
    (b"\x92\x04" + b"\x91" * 100_000, "wrong session: Expected int, got array"),
    (b"\x93\x05\x02\x91", "Opened, which"),
    (with_field(OPEN, 2, 2**31), "wrong session"),
    (with_field(OPEN, 3, [2**24 + 1, b"d" * 16]), "wrong vocabulary: Expected int <= 16777216"),
    (with_field(OPEN, 3, [300, b"d" * 16, "name"]), "wrong vocabulary: Expected array of at most length 2, got 3"),
    (with_field(OPEN, 4, [0]), "max_tokens is 0 and must be 1 to"),
    (with_field(OPEN, 4, [1, [0] * (MAX_END_IDS + 1)]), "wrong sampling: Expected array of length <= 64"),
    (with_field(OPEN, 4, [1, [], -1]), "seed is -1 and must be"),
    (with_field(OPEN, 4, [1, [], 0, float("nan")]), "temperature is nan"),
    (with_field(OPEN, 4, [1, [], 0, 1.0, float("nan")]), "top_p is nan"),
    (with_field(OPEN, 4, [1, [], 0, 1.0, 1.0, 2**24 + 1]), "top_k is 16777217"),
    (with_field(OPEN, 5, "rank:99999999999"), "rank:R is 99999999999 and must be 1 to 16777216"),
    (with_field(OPEN, 5, "rank:0"), "rank:R is 0 and must be 1 to"),
    (with_field(OPEN, 5, "kind"), "unknown acceptance rule 'kind'"),
    (with_field(OPEN, 5, "rejection:" + "1" * 60), "wrong rule"),
    (with_field(OPEN, 4, [1, [], 0, 1.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, [[2**24, 1.0]]]), "a token id of logit_bias"),
    (
        array(*OPEN[:4], [1, [], 0, 1.0, 1.0, 0, 0.0, 1.0], "rank:4", [[0, b""]]),
        "wrong rule: the rule rank:4 accepts what the model finds likely",
    ),
    (with_field(OPEN, 6, []), "neither a prompt nor a session to resume"),
    (with_field(OPEN, 6, [[0, b""]] * (MAX_SEGMENTS + 1)), "wrong segments: Expected array of length <= 64"),
    (with_field(OPEN, 6, [[2, b""]]), "wrong segments"),
    (with_field(OPEN, 6, [[0, b"", "gossip"]]), "wrong segments: Expected bool, got str"),
    (with_field(OPEN, 6, [[0, b"a"]]), "no number of ids of 18 bits"),
    (with_field(OPEN, 6, [[1, "mel", "int4", [1], b"a"]]), "dtype int4, none of int8, float16, float32"),
    (with_field(OPEN, 6, [[1, "mel", "float16", [2], b"abc"]]), "has 3 bytes and should have 4"),
    (with_field(OPEN, 6, [[1, "mel", "float16", [0], b""]]), "wrong segments"),
    (with_field(OPEN, 6, [[1, "mel", "float16", [], b"ab"]]), "wrong segments"),
    (with_field(OPEN, 6, [[1, "mel", "float32", [2**31 - 1] * 8, b"ab"]]), "should have 1"),
    (with_field(OPEN, 6, [[1, "mel", "float32", [1] * 9, b"abcd"]]), "wrong segments"),
    (array(*OPEN, [b"", 0, b"d" * 8]), "wrong resume"),
    (array(*OPEN, None, None), "Open, which cannot be read"),
]


@pytest.mark.parametrize(("data", "complaint"), REFUSED, ids=[complaint for _, complaint in REFUSED])
def test_what_may_not_be_is_refused_in_a_sentence(data: bytes, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_any(data)
    assert complaint in str(caught.value)


def test_nesting_without_end_is_refused() -> None:
    frame = b"\x97\x01\x02\x00\x93\x01" + b"\x91" * 1_000_000
    with pytest.raises(RemoteProtocolError):
        codec.decode_edge_message(frame)


def test_a_decoder_does_not_quote_at_length() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode_cloud_message(array(8, "x\x1b" * 10_000, "y"))
    assert len(str(caught.value)) < 300
    assert "\x1b" not in str(caught.value)


# Sizes


def test_forced_tokens_do_not_count_as_drafted() -> None:
    forced = messages.Offer(0, ids(*range(2000)), num_forced=2000)
    assert codec.decode_edge_message(codec.encode(forced)) == forced


def test_a_frame_above_the_limit_is_refused_by_its_size_alone() -> None:
    limits = FrameLimits(max_frame_bytes=100)
    with pytest.raises(RemoteProtocolError, match="101 bytes and this side takes 100"):
        codec.decode_edge_message(b"\xff" * 101, limits)
    with pytest.raises(RemoteProtocolError, match="begin with ffff"):
        codec.decode_edge_message(b"\xff" * 100, limits)


@pytest.mark.parametrize(
    "lie", [b"\xdd\x7f\xff\xff\xff", b"\xdc\xff\xff", b"\xc6\x7f\xff\xff\xff", b"\xdb\x7f\xff\xff\xff"]
)
@pytest.mark.parametrize("place", range(2, 9))
def test_a_length_that_is_not_there_allocates_nothing(lie: bytes, place: int) -> None:
    frame = b"\x98\x01" + b"".join(map(msgspec.msgpack.encode, OPEN[1:]))[: place - 2] + lie
    frames = [frame, b"\x97" + array(*OPEN[:place])[1:] + lie]
    tracemalloc.start()
    try:
        for data in frames:
            with pytest.raises(RemoteProtocolError):
                codec.decode_edge_message(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_many_small_parts_are_refused_before_they_are_built() -> None:
    frame = with_field(OPEN, 6, [[0, b""]] * 500_000)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            codec.decode_edge_message(frame)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        (FrameLimits(max_prompt_tokens=5), "number of tokens of the prompt is 6 and this side takes 5"),
        (FrameLimits(max_tensor_bytes=7), "tensors is 8 and this side takes 7"),
    ],
)
def test_prompts_above_the_limits_are_refused_as_a_whole(limits: FrameLimits, complaint: str) -> None:
    tensor = messages.WireTensor("mel", "float32", (1,), b"\0" * 4)
    segments = (messages.WireTokens(ids(1, 2, 3)), messages.WireTokens(ids(4, 5, 6)), tensor, tensor)
    data = codec.encode(messages.Open(2, 0, MARK, SamplingParams(), "exact", segments))
    codec.decode_edge_message(data, FrameLimits(max_prompt_tokens=6, max_tensor_bytes=8))
    with pytest.raises(RemoteProtocolError, match=complaint):
        codec.decode_edge_message(data, limits)


def test_refusing_takes_a_bounded_effort() -> None:
    size = codec.DEFAULT_LIMITS.max_frame_bytes
    frames = [
        b"\x93\x02\x00" + b"\xc6" + (size - 8).to_bytes(4, "big") + b"\0" * (size - 8),
        b"\x92\x04" + b"\x91" * (size - 2),
        with_field(OPEN, 6, [[0, b"\0" * (size - 100)]]),
    ]
    for frame in frames:
        assert len(frame) <= size

        def refuse(frame: bytes = frame) -> None:
            with pytest.raises(RemoteProtocolError):
                codec.decode_edge_message(frame)

        effort = effort_of(refuse)
        assert effort.num_steps < 100_000  # nothing is done for each of its bytes
        assert effort.peak_bytes < 1.1 * size  # what it carries is copied once at most


# Versions


@pytest.mark.parametrize("version", [0, 1, 4, 127])
@pytest.mark.parametrize("rest", [b"", b"\xc0", b"\xff\xff\xff"])
def test_another_version_is_found_whatever_its_other_fields_are(version: int, rest: bytes) -> None:
    frame = bytes([0x93, tag_of(messages.Open), version]) + rest
    with pytest.raises(VersionMismatch) as caught:
        codec.decode_edge_message(frame)
    assert (caught.value.ours, caught.value.theirs) == (messages.PROTOCOL_VERSION, version)
    answer = bytes([0x93, tag_of(messages.Opened), version]) + rest
    with pytest.raises(VersionMismatch):
        codec.decode_cloud_message(answer)


def test_a_device_says_the_oldest_version_that_has_what_it_asks_for() -> None:
    old = SamplingParams(max_tokens=3, end_ids=(1,), seed=3, temperature=0.5, top_p=0.5, top_k=4)
    assert messages.least_version(old) == messages.OLDEST_VERSION
    assert messages.least_version(replace(old, min_p=0.1)) == messages.PROTOCOL_VERSION


def test_a_version_of_more_than_a_byte_is_refused_as_malformed() -> None:
    with pytest.raises(RemoteProtocolError, match="wrong version") as caught:
        codec.decode_edge_message(with_field(OPEN, 1, 128))
    assert not isinstance(caught.value, VersionMismatch)


def test_other_messages_have_no_version_to_mismatch() -> None:
    assert codec.decode_edge_message(array(2, 2, b"a")) == messages.Offer(2, b"a")


# Faults


def test_a_fault_leaves_fit_for_a_terminal() -> None:
    said = messages.Fault(FaultCode.INTERNAL, "a\nb\x1b[31m" + "c" * 2000)
    heard = codec.decode_cloud_message(codec.encode(said))
    assert isinstance(heard, messages.Fault)
    assert heard.sentence.startswith("a b [31mccc")
    assert heard.sentence.endswith("c...")
    assert len(heard.sentence) == MAX_SENTENCE_CHARS


@pytest.mark.parametrize("code", FaultCode)
@pytest.mark.parametrize("wait_s", [None, 0, 0.5, 1, 86400, 86400.5, 2**53, 1e300, float("inf")])
def test_a_device_accepts_every_fault_whatever_its_wait(code: FaultCode, wait_s: float | None) -> None:
    heard = codec.decode_cloud_message(codec.encode(messages.Fault(code, "wait", 3, wait_s)))
    assert heard == messages.Fault(code, "wait", 3, None if wait_s is None else min(wait_s, 86400))


# What the other side accepts

STRANGE_TEXTS = [
    "",
    "a" * 5000,
    "\n\x00\x9f",
    "folder of no UTF-8: \udcff",
    "\ud83d\ude00" * 500,
    "é" * 5000,
    "\U0010ffff" * 5000,
]


@pytest.mark.parametrize("text", STRANGE_TEXTS)
def test_what_a_message_says_to_a_person_is_never_why_it_is_refused(text: str) -> None:
    opened = codec.encode(messages.Opened(messages.PROTOCOL_VERSION, 0, b"", 0, EMPTY_LOG, MARK, LIMITS, text))
    assert isinstance(codec.decode_cloud_message(opened), messages.Opened)
    fault = codec.encode(messages.Fault(FaultCode.INTERNAL, text))
    assert isinstance(codec.decode_cloud_message(fault), messages.Fault)


MOST = messages.Limits(2**31 - 1, 2**31 - 1, 2**31 - 1)
LARGEST_MARK = messages.VocabularyMark(MAX_VOCABULARY, bytes(32))
LARGEST = (2**31 - 1, bytes(64), MAX_TEXT_TOKENS, EMPTY_LOG, LARGEST_MARK, MOST, "n" * MAX_NAME_CHARS)
AT_THE_LIMITS = [
    messages.Opened(messages.PROTOCOL_VERSION, *LARGEST),
    messages.Working(2**31 - 1),
    messages.Verdict(MAX_TEXT_TOKENS, MAX_VOCABULARY - 1, 2**31 - 1, MAX_TEXT_TOKENS + 4096, num_offers=MAX_IN_FLIGHT),
    messages.Verdict(0),
    messages.Tokens(MAX_TEXT_TOKENS, b"\xff" * (3 * MAX_TEXT_TOKENS), 2**31 - 1),
    messages.Fault(FaultCode.BUSY, "s" * MAX_SENTENCE_CHARS, 2**31 - 1, 86400.0),
]


@pytest.mark.parametrize("message", AT_THE_LIMITS, ids=lambda message: type(message).__name__)
def test_a_device_accepts_every_message_of_a_cloud_at_its_limits(message: messages.CloudMessage) -> None:
    assert codec.decode_cloud_message(codec.encode(message)) == message
