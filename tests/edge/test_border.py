"""A share level never leaks: what would break it is an error before a byte is made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skydraft.core import (
    Evidence,
    Exact,
    Grammar,
    Prompt,
    SamplingParams,
    SegmentKind,
    ShareLevel,
    TensorSegment,
    TokenSegment,
)
from skydraft.decoding.edge_session import EdgeSession
from skydraft.edge.border import Border
from skydraft.errors import DisclosureError
from skydraft.protocol import codec, messages
from tests.linked import table

FEATURES = TensorSegment("log_mel", "float32", (2, 3), bytes(24))
INSTRUCTION = TokenSegment((1, 2, 3))
NOTES = TokenSegment((4, 5), SegmentKind.EVIDENCE)


def opening(*segments: TokenSegment | TensorSegment) -> messages.Open:
    vocabulary = table("table:vocab=8").vocabulary
    return EdgeSession(vocabulary, Prompt(segments), SamplingParams(), Exact()).open()


@pytest.mark.parametrize("message", [opening(INSTRUCTION), messages.Offer(0, b"\x01"), messages.Close()])
def test_none_lets_no_message_out(message: messages.EdgeMessage) -> None:
    border = Border(ShareLevel.NONE)
    with pytest.raises(DisclosureError, match="share level none"):
        border.let_out(message)
    assert not border.record.up


def test_tokens_keeps_tensors_on_the_device() -> None:
    border = Border(ShareLevel.TOKENS)
    with pytest.raises(DisclosureError, match=r"log_mel of shape \[2, 3\] was about to leave"):
        border.let_out(opening(INSTRUCTION, FEATURES))
    assert not border.record.up


def test_tokens_keeps_a_tensor_that_claims_to_be_an_instruction() -> None:
    disguised = TensorSegment("log_mel", "float32", (2, 3), bytes(24), SegmentKind.INSTRUCTION)
    with pytest.raises(DisclosureError):
        Border(ShareLevel.TOKENS).let_out(opening(disguised))


def test_tokens_keeps_evidence_as_text_on_the_device() -> None:
    with pytest.raises(DisclosureError, match="what the device observed"):
        Border(ShareLevel.TOKENS).let_out(opening(INSTRUCTION, NOTES))


@pytest.mark.parametrize("level", [ShareLevel.TOKENS, ShareLevel.FEATURES])
def test_what_the_draft_model_is_called_stays_on_the_device(level: ShareLevel) -> None:
    """It may be the path of a folder, and with it a person's or a project's name."""
    vocabulary = replace(table("table:vocab=8").vocabulary, name="/home/ann/secret-project")
    session = EdgeSession(vocabulary, Prompt((INSTRUCTION,)), SamplingParams(), Exact())
    data = Border(level).let_out(session.open())
    assert b"secret" not in data
    assert b"ann" not in data


def test_tokens_lets_the_instruction_and_drafts_out_and_records_them() -> None:
    border = Border(ShareLevel.TOKENS)
    num_bytes = len(border.let_out(opening(INSTRUCTION)))
    num_bytes += len(border.let_out(messages.Offer(0, b"\x01\x02")))
    assert sum(border.record.up.values()) == num_bytes
    assert set(border.record.up) == {"prompt", "drafts"}
    assert not border.record.has_evidence


@pytest.mark.parametrize("evidence", [FEATURES, NOTES])
def test_evidence_waits_until_the_device_is_unsure(evidence: TokenSegment | TensorSegment) -> None:
    border = Border(ShareLevel.FEATURES, Evidence.UNSURE)
    border.let_out(opening(INSTRUCTION))
    with pytest.raises(DisclosureError, match=r"evidence unsure keeps .* use evidence always to send it"):
        border.let_out(opening(INSTRUCTION, evidence))
    assert not border.record.has_evidence
    border.release_evidence()
    border.let_out(opening(INSTRUCTION, evidence))
    assert border.record.has_evidence


@pytest.mark.parametrize(("level", "when"), [(ShareLevel.FEATURES, "never"), (ShareLevel.TOKENS, "unsure")])
def test_a_doubt_does_not_release_what_is_never_to_leave(level: ShareLevel, when: str) -> None:
    border = Border(level, Evidence(when))
    border.release_evidence()
    with pytest.raises(DisclosureError):
        border.let_out(opening(INSTRUCTION, FEATURES))
    assert not border.record.up


def test_what_the_sampling_says_in_words_is_recorded() -> None:
    sampling = SamplingParams(stop=("Ann:", "Ben:"), grammar=Grammar("regex", "a+"))
    session = EdgeSession(table("table:vocab=8").vocabulary, Prompt((INSTRUCTION,)), sampling, Exact())
    border = Border(ShareLevel.TOKENS)
    border.let_out(session.open())
    assert border.record.contents == {"instruction text": 1, "stop strings": 2, "grammar": 1}
    assert not border.record.has_evidence


def test_features_are_recorded_as_evidence_with_their_shape() -> None:
    border = Border(ShareLevel.FEATURES)
    data = border.let_out(opening(INSTRUCTION, FEATURES))
    assert border.record.up["features"] == 24
    assert sum(border.record.up.values()) == len(data)
    assert border.record.has_evidence
    assert border.record.contents["evidence: log_mel [2, 3] float32"] == 1


def test_what_arrives_is_counted_by_kind() -> None:
    border = Border(ShareLevel.TOKENS)
    for message in (messages.Verdict(3, 1), messages.Tokens(0, b"\x01"), messages.Fault(messages.FaultCode.BUSY, "x")):
        assert border.let_in(codec.encode(message)) == message
    assert set(border.record.down) == {"verdicts", "tokens", "control"}
