"""The device's modes against a cloud on loopback, with table engines."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from skydraft.config import DeviceSettings
from skydraft.core import (
    Exact,
    Mode,
    Origin,
    Prompt,
    Rank,
    Rejection,
    SamplingParams,
    SegmentKind,
    TensorSegment,
    TextPiece,
    TokenSegment,
)  # fmt: skip
from skydraft.decoding.lookup import NO_SOURCES, LookupSources
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.job import Job, Notify
from skydraft.edge.patience import Patience
from skydraft.edge.report import Report
from skydraft.edge.writer import Writer
from skydraft.engines.base import Extension
from skydraft.engines.load import load_tokenizer
from skydraft.errors import ConfigError, DisclosureError, EngineError, TransportError, VocabularyMismatch
from skydraft.policies.gate import AlwaysGate, EntropyGate, NeverGate
from skydraft.policies.way import parse_way
from skydraft.sampling.signals import relative_probabilities
from skydraft.tasks.base import PromptPair
from skydraft.text.token_reader import TokenReader
from skydraft.text.vocabulary import Vocabulary
from tests.linked import PROMPT, cloud_only, table

TARGET = "table:vocab=8,seed=5,order=2"
DRAFT = "table:vocab=8,seed=5,order=2,noise=1"
RANDOM_DRAFT = "table:vocab=8,seed=99"
SAMPLING = SamplingParams(temperature=0.8, seed=3, max_tokens=40)


JOB = Job(
    settings=DeviceSettings(),
    prompts=PromptPair(PROMPT, PROMPT),
    vocabulary=table(TARGET).vocabulary,
    reader=TokenReader(load_tokenizer(TARGET, "draft")),
    sampling=SAMPLING,
    rule=Exact(),
    gate=AlwaysGate(),
    patience=Patience("fail", 0),
)


def changed(job: Job, **changes: Any) -> Job:
    """The job with other values, of its own or of its settings."""
    own = {name: value for name, value in changes.items() if hasattr(job, name)}
    of_settings = {name: value for name, value in changes.items() if name not in own}
    return replace(job, settings=structs.replace(job.settings, **of_settings), **own)


async def write(
    url: str | None,
    *,
    draft: str | None = DRAFT,
    max_length: int = 4096,
    notify: Notify = lambda _: None,
    **changes: Any,
) -> Report:
    job = changed(JOB, address=None if url is None else CloudAddress(url), **changes)
    shown: list[TextPiece] = []
    writer = Writer(None if draft is None else table(draft, max_length=max_length))
    try:
        report = await writer.write(job, shown.extend, notify)
    finally:
        writer.close()
    assert tuple(shown) == report.pieces
    return report


def ids(report: Report) -> list[int]:
    return [token.token_id for token in report.tokens]


@pytest.mark.parametrize("way", ["wait:5", "pipelined:3", "prepared:4", "tree", "free", "auto", "cloud"])
@pytest.mark.parametrize("draft", [DRAFT, RANDOM_DRAFT, TARGET])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_hybrid_writes_what_the_cloud_alone_writes(
    address: str, draft: str, temperature: float, way: str
) -> None:
    sampling = SamplingParams(temperature=temperature, seed=7, max_tokens=40)
    hybrid = await write(address, draft=draft, sampling=sampling, way=parse_way(way))
    alone = await write(address, mode=Mode.CLOUD, draft=None, sampling=sampling)
    assert ids(hybrid) == ids(alone) == cloud_only(table(TARGET), sampling)
    assert alone.num_by_origin[Origin.CLOUD] == 40
    assert hybrid.rounds > 0 or way in ("free", "auto", "cloud")  # a fast cloud may write all by itself


@pytest.mark.parametrize("draft", [None, DRAFT])
@pytest.mark.parametrize("mode", [Mode.HYBRID, Mode.AUTO])
async def test_what_is_expected_is_drafted_with_and_without_a_model(
    address: str, draft: str | None, mode: Mode
) -> None:
    text = cloud_only(table(TARGET), SAMPLING)
    sources = LookupSources([*text[:30], 0, 0, 0, *text[30:]])
    report = await write(address, draft=draft, mode=mode, sources=sources)
    assert ids(report) == text
    assert report.is_cloud_text


async def test_a_private_context_is_in_no_draft(address: str) -> None:
    sampling = SamplingParams(max_tokens=4)  # with the prompt no two of its tokens come twice
    text = cloud_only(table(TARGET), sampling)
    quoted = Prompt((TokenSegment((*PROMPT.token_ids, *text), SegmentKind.EVIDENCE), *PROMPT.segments))
    report = await write(address, draft=None, sampling=sampling, prompts=PromptPair(quoted, PROMPT), sources=NO_SOURCES)
    assert ids(report) == text
    assert "drafts" not in report.disclosure.up


async def test_edge_writes_what_the_draft_model_writes() -> None:
    report = await write(None, mode=Mode.EDGE)
    assert ids(report) == cloud_only(table(DRAFT), SAMPLING)
    assert set(report.num_by_origin) == set(Origin)
    assert report.num_by_origin[Origin.EDGE] == 40
    assert not report.disclosure.up


async def test_a_gate_that_never_escalates_sends_no_draft(address: str) -> None:
    report = await write(address, gate=NeverGate(), rule=Rank(20))
    assert ids(report) == cloud_only(table(DRAFT), SAMPLING)
    assert set(report.disclosure.up) <= {"prompt", "control"}


async def test_a_gate_in_between_mixes_origins(address: str) -> None:
    report = await write(address, gate=EntropyGate(1.45), rule=Rank(1))
    origins = report.num_by_origin
    assert origins[Origin.EDGE] > 0
    assert origins[Origin.ACCEPTED] + origins[Origin.CORRECTED] > 0
    assert origins[Origin.CLOUD] == 0


async def test_rejection_sends_distributions_and_writes_a_whole_text(address: str) -> None:
    report = await write(address, rule=Rejection(4, 16))
    assert len(report.tokens) == 40
    assert report.num_by_origin[Origin.ACCEPTED] > 0


async def test_evidence_stays_under_tokens_and_nothing_is_sent(address: str) -> None:
    evidence = Prompt((TensorSegment("log_mel", "float32", (1, 1), bytes(4)),))
    with pytest.raises(DisclosureError, match="log_mel"):
        await write(address, prompts=PromptPair(PROMPT, evidence))
    notes = Prompt((TokenSegment((1, 2), SegmentKind.EVIDENCE),))
    with pytest.raises(DisclosureError, match="observed"):
        await write(address, prompts=PromptPair(PROMPT, notes))


async def test_another_vocabulary_is_refused_with_the_first_ids_that_differ(address: str) -> None:
    theirs = table(TARGET).vocabulary
    tokens = (*theirs.tokens[:3], "other", *theirs.tokens[4:])
    with pytest.raises(VocabularyMismatch, match=f"id 3 is 'other' in the draft and {theirs.tokens[3]!r} in the tar"):
        await write(address, vocabulary=Vocabulary("mine", tokens, 8))


async def test_a_cloud_that_is_not_there_fails_in_a_sentence() -> None:
    with pytest.raises(TransportError, match="127.0.0.1"):
        await write("ws://127.0.0.1:9")


async def test_a_cloud_that_is_not_there_is_waited_for_as_long_as_patience_goes() -> None:
    with pytest.raises(TransportError):
        await write("ws://127.0.0.1:9", patience=Patience("wait", 0.3))


async def test_without_a_cloud_the_device_goes_on_alone() -> None:
    report = await write("ws://127.0.0.1:9", patience=Patience("edge", 0))
    assert report.is_alone
    assert ids(report) == cloud_only(table(DRAFT), SAMPLING)


async def test_without_a_draft_model_only_the_cloud_can_write(address: str) -> None:
    with pytest.raises(ConfigError, match="--draft"):
        await write(address, draft=None)


async def test_slots_are_given_back_after_every_text(address: str) -> None:
    for _ in range(20):  # the cloud has 8
        await write(address, sampling=SamplingParams(max_tokens=5))


async def test_a_device_alone_ends_a_text_where_its_slot_is_full_and_says_so() -> None:
    said: list[str] = []
    report = await write(None, mode=Mode.EDGE, max_length=3 + 10, notify=said.append)
    assert report.ended_early is not None
    assert ids(report) == cloud_only(table(DRAFT), SAMPLING)[: len(report.tokens)]
    assert 10 <= len(report.tokens) <= 11  # the last token need not be read
    (sentence,) = said
    assert f"ended early, after {len(report.tokens)} tokens: {report.ended_early}" in sentence
    assert "--max-length" in sentence


EMOTIONS = {1: "calm", 4: "sad", 6: "calm"}


async def weighed(url: str | None, **changes: Any) -> tuple[Report, dict[str, float]]:
    """A text, and what the draft model gives emotions where the text names the first one."""
    report = await write(url, emotion_tokens=EMOTIONS, **changes)
    place = next(place for place, token_id in enumerate(ids(report)) if token_id in EMOTIONS)
    engine = table(DRAFT)
    slot, row = engine.open(PROMPT)[:2]
    for token_id in ids(report)[:place]:
        row = engine.extend([Extension.chain(slot, [token_id])])[0][-1]
    shares = dict(zip(EMOTIONS, relative_probabilities(row, list(EMOTIONS)), strict=True))
    return report, {"calm": shares[1] + shares[6], "sad": shares[4]}


@pytest.mark.parametrize(
    ("changes", "is_clouds"),
    [
        ({"mode": Mode.EDGE}, False),
        ({"mode": Mode.CLOUD}, True),
        ({"way": parse_way("tree")}, True),
        ({"way": parse_way("cloud")}, True),
        ({"rule": Rank(8), "gate": NeverGate()}, False),
    ],
)
@pytest.mark.parametrize("seed", [3, 7])
async def test_the_draft_model_weighs_the_emotion_that_a_text_names(
    address: str, changes: dict[str, Any], is_clouds: bool, seed: int
) -> None:
    sampling = SamplingParams(temperature=0.8, seed=seed, max_tokens=40)
    report, probabilities = await weighed(address, sampling=sampling, **changes)
    word = report.emotion_word
    assert word is not None
    assert word.probabilities == pytest.approx(probabilities)
    assert word.emotion == next(EMOTIONS[token_id] for token_id in ids(report) if token_id in EMOTIONS)
    assert word.is_clouds is is_clouds


@pytest.mark.parametrize("changes", [{"draft": None, "mode": Mode.CLOUD}, {"max_length": 2, "mode": Mode.CLOUD}])
async def test_without_a_draft_model_that_has_read_it_an_emotion_is_not_weighed(
    address: str, changes: dict[str, Any]
) -> None:
    assert (await write(address, emotion_tokens=EMOTIONS, **changes)).emotion_word is None


async def test_weighing_an_emotion_takes_none_of_the_texts_time_and_loses_no_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0

    def fail_slowly(row: Any, token_ids: Any) -> list[float]:
        nonlocal now_s
        now_s += 100.0
        raise EngineError("no finite logits")

    monkeypatch.setattr("skydraft.edge.writer.time", SimpleNamespace(perf_counter=lambda: now_s))
    monkeypatch.setattr("skydraft.edge.writer.relative_probabilities", fail_slowly)
    report = await write(None, mode=Mode.EDGE, emotion_tokens=EMOTIONS)
    assert len(ids(report)) == SAMPLING.max_tokens
    assert report.emotion_word is None
    assert (now_s, report.total_s) == (100.0, 0.0)


async def test_a_text_without_an_emotion_has_nothing_to_weigh() -> None:
    assert (await write(None, mode=Mode.EDGE, emotion_tokens={9: "sad"})).emotion_word is None
