"""The look at machine, draft and cloud, against a cloud in a process of its own; what is measured, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from skydraft.config import DeviceSettings
from skydraft.core import Mode, ShareLevel
from skydraft.edge import machine
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.cloud_http import HEALTH_PATH, CloudFacts, CloudRows, inquire
from skydraft.edge.doctor import checkup, measure
from skydraft.edge.doctor.checkup import Checkup, FindingState, check_up
from skydraft.engines.emulated.paced import Pace
from skydraft.engines.load import load_tokenizer
from skydraft.policies.tiers import LEAST_DRAFT_TOKENS_PER_S
from skydraft.text.vocabulary import Vocabulary
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings
from tests.edge.test_machine import PLAIN, SPEED
from tests.linked import table
from tests.system.processes import free_port, running_cloud
from tests.virtual_cloud import in_pace, virtual_cloud
from tests.virtual_time import in_virtual_time

TABLE = "table:vocab=64,seed=3,order=2"
TARGET = f"paced:step_ms=30:{TABLE}"
DRAFT = f"paced:step_ms=2:{TABLE}"


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    with running_cloud(TARGET) as (_, address):
        yield address


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LOOK_S", 0.01)
    monkeypatch.setattr(machine, "MEASURE_S", 0.01)
    monkeypatch.setattr(measure, "MEASURE_S", 0.1)
    # Nothing is found fault with for being slow on a machine that is.
    monkeypatch.setattr(checkup, "BUSY_SHARE", 1.0)
    monkeypatch.setattr(checkup, "LEAST_DRAFT_TOKENS_PER_S", 1e-9)
    for limit in ("LONG_ROUND_TRIP_S", "LEAST_JITTER_S"):
        monkeypatch.setattr(checkup, limit, 1e9)


def findings(result: Checkup) -> dict[str, FindingState]:
    return {finding.check: finding.state for finding in result.findings}


def sentence(result: Checkup, check: str) -> str:
    return next(finding.sentence for finding in result.findings if finding.check == check)


async def test_a_cloud_in_order_is_measured_in_all_its_parts(cloud: str) -> None:
    result = await check_up(DeviceSettings(draft=DRAFT, cloud=cloud))
    assert result.is_well
    assert list(findings(result)) == ["draft", "cloud", "exactness", "link", "vocabulary", "rounds", "cloud alone"]
    assert result.draft is not None
    assert result.draft.step_s >= 0.002
    assert result.link is not None
    assert result.link.round_trip_s > 0
    assert result.link.num_pings == 20
    assert result.rounds is not None
    assert result.rounds.round_s >= 0.030
    assert result.rounds.draft_s >= 0.008  # five tokens from four passes: the first one's logits were there
    assert result.rounds.num_accepted == result.rounds.num_drafted  # the same table on either side
    assert result.cloud_tokens_per_s is not None
    assert result.cloud_tokens_per_s > 0
    assert result.decision is not None


@in_virtual_time
async def test_what_is_measured_is_what_draft_link_and_cloud_take(monkeypatch: pytest.MonkeyPatch) -> None:
    async def healthy(*_: object) -> CloudFacts:
        return CloudFacts()

    monkeypatch.setattr(checkup, "look_at_machine", lambda: PLAIN)
    monkeypatch.setattr(checkup, "measure_speed", lambda _: SPEED)
    monkeypatch.setattr(checkup, "load_engine", lambda *_: in_pace(table(TABLE), Pace(step_ms=2)))
    monkeypatch.setattr(checkup, "inquire", healthy)
    path = LinkSettings(PathSettings(delay_ms=10), PathSettings(delay_ms=10))
    async with (
        virtual_cloud(in_pace(table(TABLE), Pace(step_ms=30))) as url,
        Link(Address.parse(url.removeprefix("ws://")), path) as link,
    ):
        result = await check_up(DeviceSettings(draft=TABLE, cloud=f"ws://{link.address}"))
    assert result.is_well
    assert result.draft is not None
    assert result.draft.step_s == pytest.approx(0.002)
    assert result.link is not None
    assert result.link.round_trip_s == pytest.approx(0.02, abs=0.001)
    assert result.rounds is not None
    assert result.rounds.draft_s == pytest.approx(0.010, abs=0.001)
    assert result.rounds.round_s == pytest.approx(0.05, abs=0.001)
    assert result.cloud_tokens_per_s == pytest.approx(1 / 0.03, rel=0.01)
    assert result.decision is not None
    assert result.decision.mode is Mode.HYBRID


@pytest.mark.parametrize(
    ("rows", "state", "words"),
    [
        (
            CloudRows(True, "rows are read from a table", 0.0),
            FindingState.OK,
            "promised under the rule exact: rows are",
        ),
        (CloudRows(False, "it rounds", 0.25), FindingState.WEAK, "measured when it was loaded: 0.25), for it rounds"),
        (CloudRows(False, "it rounds", None), FindingState.WEAK, "(not measured), for it rounds: a result says"),
    ],
)
async def test_what_a_cloud_promises_is_told(
    rows: CloudRows, state: FindingState, words: str, cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(*_: object) -> CloudFacts:
        return CloudFacts(rows=rows)

    monkeypatch.setattr("skydraft.edge.doctor.checkup.inquire", answer)
    result = await check_up(DeviceSettings(draft="/nowhere", cloud=cloud))
    assert findings(result)["exactness"] is state
    assert words in sentence(result, "exactness")


async def test_nothing_is_asked_of_health_that_no_cloud_says(cloud: str) -> None:
    said = await inquire(CloudAddress(cloud, None), HEALTH_PATH, dict[str, object])  # type: ignore[type-var]
    assert set(CloudFacts.__struct_fields__) == set(said)


async def test_health_names_the_model_and_whether_it_kept_its_pace(cloud: str) -> None:
    result = await check_up(DeviceSettings(draft=DRAFT, cloud=cloud))
    assert isinstance(result.cloud, CloudFacts)
    assert result.cloud.model == f"paced:step_ms=30,node_ms=0,prompt_ms=0:{TABLE}"
    assert result.cloud.pace is not None
    assert set(result.cloud.pace) == {"num_passes", "overruns", "total_late_s"}


async def test_without_a_cloud_the_draft_is_looked_at_alone() -> None:
    result = await check_up(DeviceSettings(draft=DRAFT))
    assert findings(result) == {"draft": FindingState.OK}
    assert result.decision is not None
    assert (result.decision.mode, result.decision.reason) == (Mode.EDGE, "no cloud is configured")


async def test_a_cloud_out_of_reach_is_one_failure_and_the_device_is_told_to_write_alone() -> None:
    address = f"ws://127.0.0.1:{free_port()}"
    result = await check_up(DeviceSettings(draft=DRAFT, cloud=address))
    assert findings(result) == {"draft": FindingState.OK, "cloud": FindingState.FAILED}
    assert not result.is_well
    assert f"no cloud could be reached at {address}" in sentence(result, "cloud")
    assert result.decision is not None
    assert result.decision.mode is Mode.EDGE


async def test_models_that_share_no_vocabulary_are_told_with_the_ids_that_differ(
    cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = load_tokenizer(TABLE, "draft").vocabulary.tokens
    other = SimpleNamespace(vocabulary=Vocabulary("other", tokens[::-1], len(tokens)), encode=lambda _: (1, 2))
    monkeypatch.setattr(checkup, "load_tokenizer", lambda *_: other)
    result = await check_up(DeviceSettings(draft=DRAFT, cloud=cloud))
    assert findings(result)["vocabulary"] is FindingState.FAILED
    assert f"id 0 is '{tokens[-1]}' in the draft and '{tokens[0]}' in the target" in sentence(result, "vocabulary")
    assert "rounds" not in findings(result)


async def test_a_draft_that_cannot_be_loaded_leaves_the_cloud_to_be_looked_at(cloud: str) -> None:
    result = await check_up(DeviceSettings(draft="/nowhere", cloud=cloud))
    well = dict.fromkeys(("cloud", "exactness", "link"), FindingState.OK)
    assert findings(result) == {"draft": FindingState.FAILED, **well}
    assert "there is no model folder /nowhere" in sentence(result, "draft")
    assert result.decision is not None
    assert result.decision.mode is Mode.CLOUD


async def test_where_nobody_can_write_nothing_is_recommended() -> None:
    result = await check_up(DeviceSettings(draft="/nowhere"))
    assert result.decision is None
    assert not result.is_well


async def test_a_slow_draft_is_weak_and_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "LEAST_DRAFT_TOKENS_PER_S", LEAST_DRAFT_TOKENS_PER_S)
    result = await check_up(DeviceSettings(draft=f"paced:step_ms=120:{TABLE}"))
    assert findings(result) == {"draft": FindingState.WEAK}
    assert "choose a smaller --draft" in sentence(result, "draft")
    assert result.is_well


async def test_a_long_way_to_the_cloud_is_weak(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "NUM_PINGS", 3)
    monkeypatch.setattr(measure, "NUM_TEXT_TOKENS", 12)
    monkeypatch.setattr(checkup, "LONG_ROUND_TRIP_S", 0.2)
    path = PathSettings(delay_ms=105)
    upstream = Address("127.0.0.1", int(cloud.rpartition(":")[2]))
    async with Link(upstream, LinkSettings(path, path)) as link:
        result = await check_up(DeviceSettings(draft=DRAFT, cloud=f"ws://127.0.0.1:{link.address.port}"))
    assert result.link is not None
    assert result.link.round_trip_s >= 0.21
    assert findings(result)["link"] is FindingState.WEAK
    assert "take a cloud nearer by" in sentence(result, "link")


async def test_share_level_none_sends_no_token_of_a_trial(cloud: str) -> None:
    result = await check_up(DeviceSettings(draft=DRAFT, cloud=cloud, mode=Mode.EDGE, share=ShareLevel.NONE))
    assert findings(result)["rounds"] is FindingState.FAILED
    assert "share level none lets nothing leave the device" in sentence(result, "rounds")
    assert result.decision is not None
    assert result.decision.mode is Mode.EDGE


async def test_a_busy_machine_is_told_before_anything_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "BUSY_SHARE", -1.0)
    result = await check_up(DeviceSettings(draft=DRAFT))
    assert next(iter(findings(result).items())) == ("machine", FindingState.WEAK)
