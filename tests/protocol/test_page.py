"""docs/protocol.md against the code."""

import re
from collections import deque
from pathlib import Path

import msgspec
import pytest

from skydraft.core import (
    Draft,
    Exact,
    Lattice,
    LatticeDistribution,
    Prompt,
    SamplingParams,
    TokenLogprobs,
    TokenSegment,
    TreeShape,
)
from skydraft.protocol import codec, limits, messages, offers, packing, padding, segments
from skydraft.protocol.messages import CloudMessage, EdgeMessage, FaultCode

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
NUM_TOKENS = 151_936
ID_BITS = packing.id_bits(NUM_TOKENS)
MESSAGES: list[type[msgspec.Struct]] = [
    messages.Open,
    messages.Offer,
    messages.Generate,
    messages.Close,
    messages.Opened,
    messages.Verdict,
    messages.Tokens,
    messages.Fault,
    messages.Working,
    messages.PromptRead,
]


def section(title: str) -> str:
    """What stands below a heading, to the next one."""
    found = re.search(rf"^##+ {re.escape(title)}$(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no heading {title}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if not set(row[0]) <= {"-"}][1:]


def example() -> list[tuple[str, str, bytes]]:
    """Side, kind and bytes of each message of the worked example."""
    lines = section("A worked example").split("```")[1].strip("\n").splitlines()
    said: list[tuple[str, str, str]] = []
    for line in lines:
        side, kind, data = line[:8].strip(), line[8:18].strip(), line[18:]
        if side:
            said.append((side, kind, data))
        else:
            said[-1] = (*said[-1][:2], said[-1][2] + data)
    return [(side, kind, bytes.fromhex(data)) for side, kind, data in said]


def conversation() -> list[EdgeMessage | CloudMessage]:
    prompt = Prompt((TokenSegment((37904, 1186, 19386)),))
    sampling = SamplingParams(max_tokens=64, end_ids=(151_645,))
    first = Draft.chain(0, (785, 8251, 374, 11699, 13))
    second = Draft.chain(3, (389, 279, 5517))
    mark = messages.VocabularyMark(NUM_TOKENS, b"digest-1")
    taken = messages.Limits(2048, 64, 8)
    return [
        messages.Open(2, 0, mark, sampling, "exact", segments.to_wire(prompt, ID_BITS)),
        messages.Opened(2, 0, b"key1", 0, packing.log_digest([]), mark, taken, "target"),
        offers.to_wire(first, 0, NUM_TOKENS, Exact()),
        messages.Verdict(3, 11_435),
        offers.to_wire(second, 0, NUM_TOKENS, Exact()),
        messages.Verdict(7, 151_645),
        messages.Close(),
    ]


def test_the_worked_example_is_what_the_code_says() -> None:
    said = example()
    assert [data.hex(" ") for _, _, data in said] == [codec.encode(message).hex(" ") for message in conversation()]
    assert [kind for _, kind, _ in said] == [type(message).__name__ for message in conversation()]


def test_the_worked_example_is_understood() -> None:
    decoders = {"device": codec.decode_edge_message, "cloud": codec.decode_cloud_message}
    assert [decoders[side](data) for side, _, data in example()] == conversation()


@pytest.mark.parametrize("message", MESSAGES)
def test_every_field_stands_in_its_place(message: type[msgspec.Struct]) -> None:
    config, name = message.__struct_config__, message.__name__
    fields = rows(section(f"{name} (tag {config.tag})").split("| part |")[0].split("| code | why |")[0])
    assert [row[0] for row in fields] == list(message.__struct_fields__)
    for row, field in zip(fields, msgspec.structs.fields(message), strict=True):
        assert bool(row[2]) == (field.default is not msgspec.NODEFAULT)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("VocabularyMark", messages.VocabularyMark),
        ("Sampling", SamplingParams),
        ("Tokens segment", messages.WireTokens),
        ("Tensor segment", messages.WireTensor),
        ("Resume", messages.Resume),
    ],
)
def test_every_part_has_its_fields_in_order(name: str, part: type[msgspec.Struct]) -> None:
    fields = dict(rows("| part" + section("Open (tag 1)").split("| part")[1]))[name].split(", ")
    if part.__struct_config__.tag is not None:
        assert fields.pop(0) == str(part.__struct_config__.tag)
    assert [field.split()[0] for field in fields] == list(part.__struct_fields__)


def test_every_fault_code_is_explained() -> None:
    codes = rows("| code" + section("Fault (tag 8)").split("| code | why")[1])
    assert [row[0] for row in codes] == [code.value for code in FaultCode]


def test_every_limit_is_right() -> None:
    assert [int(row[1]) for row in rows(section("Limits"))] == [
        limits.MAX_TEXT_TOKENS,
        limits.MAX_DRAFT_TOKENS,
        limits.MAX_IN_FLIGHT,
        limits.MAX_VOCABULARY,
        limits.MAX_SEGMENTS,
        limits.MAX_DIMENSIONS,
        limits.MAX_END_IDS,
        limits.MAX_BIASED_IDS,
        limits.MAX_STOPS,
        limits.MAX_STOP_CHARS,
        limits.MAX_GRAMMAR_CHARS,
        limits.MAX_PROBS_BYTES,
        limits.MAX_NAME_CHARS,
        limits.MAX_RULE_CHARS,
        limits.MAX_SENTENCE_CHARS,
        limits.MAX_KEY_BYTES,
    ]
    default = limits.FrameLimits()
    assert (default.max_frame_bytes, default.max_prompt_tokens, default.max_tensor_bytes) == (8 << 20, 32_768, 4 << 20)


def test_what_is_said_of_padding_is_right() -> None:
    text = section("Padding")
    example = re.search(r"`(c1 [0-9a-f ]+)`, and (\d+) zeros", text)
    assert example
    said = bytes.fromhex(example[1]) + bytes(int(example[2]))
    assert said == padding.pack(deque([codec.encode(messages.Close())]))
    assert re.findall(r"2\^(\d+)", text) == [str(size.bit_length() - 1) for size in padding.SIZES]
    assert f"at\nmost {padding.MAX_MESSAGES};" in text


def test_the_diagram_of_ids_is_right() -> None:
    diagram = section("Token ids: `ids`")
    data = packing.pack([1, 2, 3], 18)
    assert data.hex() in re.sub(r"\s", "", diagram)
    bits = re.search(r"^ *([01| ]{50,})$", diagram, re.MULTILINE)
    assert bits
    assert int(re.sub(r"\D", "", bits[1]), 2) == int.from_bytes(data, "big")
    assert [int(part.replace(" ", ""), 2) for part in bits[1].split("|")] == [1, 2, 3, 0]


def test_the_diagrams_of_trees_and_distributions_are_right() -> None:
    tree = re.search(r"parents 0, 0, 1, 3 .*?: +([0-9a-f ]+)$", PAGE, re.MULTILINE)
    assert tree
    assert packing.pack_parents(TreeShape((0, 0, 1, 3))) == bytes.fromhex(tree[1])
    record = re.search(r"ids 0 and 2 .*?: +([0-9a-f ]+)$", PAGE, re.MULTILINE)
    assert record
    drawn = packing.pack_probs([2], [LatticeDistribution((0, 2), (1, 3))], 3, Lattice(2, 4))
    assert drawn == bytes.fromhex(record[1])


def test_the_diagram_of_log_probabilities_is_right() -> None:
    record = re.search(r"^  ([0-9a-f ]{36,})$", section("Log-probabilities: `logprobs`"), re.MULTILINE)
    assert record
    assert packing.pack_logprobs([TokenLogprobs(-1.5, ((300, -0.25),))], 1) == bytes.fromhex(record[1])
