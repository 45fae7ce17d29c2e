from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from skydraft.cloud.metrics import Metrics
from skydraft.config import CloudSettings
from skydraft.protocol import messages
from tests.cloud.running import (
    counted,
    get,
    hear,
    new_session,
    open_session,
    running,
    samples,
    tell,
    tell_due,
)
from tests.waiting import wait_until

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "skydraft.json"


def test_everything_that_happened_is_counted() -> None:
    metrics = Metrics()
    metrics.opened()
    metrics.opened()
    metrics.closed()
    metrics.passed(num_sessions=3, num_positions=20, num_emitted=7, forward_s=0.25)
    metrics.passed(num_sessions=1, num_positions=1, num_emitted=0, forward_s=0.5)
    metrics.waited(0.125)
    metrics.judged(num_offered=8, num_accepted=5)
    metrics.moved(num_evicted=3, num_restored=2)
    metrics.refused("busy")
    with metrics.connection("phone"):
        inside = counted(metrics)
    expected = {
        "skydraft_sessions": 1,
        "skydraft_sessions_opened_total": 2,
        "skydraft_pass_sessions_sum": 4,
        "skydraft_pass_positions_sum": 21,
        "skydraft_pass_tokens_sum": 7,
        "skydraft_forward_seconds_count": 2,
        "skydraft_forward_seconds_sum": 0.75,
        "skydraft_queue_seconds_sum": 0.125,
        "skydraft_tokens_offered_total": 8,
        "skydraft_tokens_accepted_total": 5,
        "skydraft_evictions_total": 3,
        "skydraft_restorations_total": 2,
        "skydraft_faults_total:busy": 1,
        "skydraft_connections": 1,
    }
    assert {name: inside[name] for name in expected} == expected
    assert counted(metrics)["skydraft_connections"] == 0


def test_two_clouds_of_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.opened()
    assert counted(other)["skydraft_sessions"] == 0


def test_a_cloud_counts_what_its_devices_do() -> None:
    with running(CloudSettings(port=0)) as cloud:
        with connect(cloud.address + "/v1/session") as socket:
            session = new_session()
            open_session(socket, session)
            session.offer([1, 2, 3])
            tell_due(socket, session)
            verdict = hear(socket)
            assert isinstance(verdict, messages.Verdict)
            tell(socket, messages.Offer(0, b"\x01", session=7))
            assert isinstance(hear(socket), messages.Fault)
            now = samples(get(cloud.address, "/metrics").text)
        wait_until(lambda: samples(get(cloud.address, "/metrics").text)["skydraft_connections"] == 0)
    num_accepted = verdict.length - (verdict.token_id is not None)
    assert (now["skydraft_connections"], now["skydraft_sessions"]) == (1, 1)
    assert (now["skydraft_tokens_offered_total"], now["skydraft_tokens_accepted_total"]) == (3, num_accepted)
    assert now["skydraft_pass_tokens_sum"] == verdict.length
    assert now["skydraft_faults_total:protocol"] == 1
    assert now["skydraft_queue_seconds_count"] >= 1


def test_the_operators_page_names_every_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text().replace("`_pass", "`skydraft_pass")
    named = set(re.findall(r"`(skydraft_\w+)", page))
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in exported_names()}
    assert named == {name for name in families if name.startswith("skydraft_") and f"{name}_total" not in families}


# The dashboard


@pytest.fixture(scope="module")
def queries() -> list[str]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def exported_names() -> set[str]:
    metrics = Metrics()
    metrics.refused("busy")
    return {name.partition(":")[0] for name in counted(metrics)}


def test_the_dashboard_asks_for_exported_names_only(queries: list[str]) -> None:
    asked = {name for query in queries for name in re.findall(r"\b(?:skydraft|process)_\w+", query)}
    assert asked
    assert asked <= exported_names()


def test_the_dashboard_shows_every_metric_of_ours(queries: list[str]) -> None:
    text = " ".join(queries)
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in exported_names()}
    ours = {family for family in families if family.startswith("skydraft_")}
    assert {family for family in ours if not re.search(rf"\b{family}(_total|_bucket|_sum|_count)?\b", text)} == set()


def test_the_dashboards_panels_have_titles_units_and_do_not_overlap() -> None:
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    assert all(panel["title"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_recent_queue_time_is_the_mean_since_it_was_last_asked() -> None:
    metrics = Metrics()
    assert metrics.recent_queue_s() == 0
    metrics.waited(0.25)
    metrics.waited(0.75)
    assert metrics.recent_queue_s() == 0.5
    assert metrics.recent_queue_s() == 0
    metrics.waited(1.0)
    assert metrics.recent_queue_s() == 1.0


def test_samples_are_what_the_exposition_says_of_the_cloud_alone() -> None:
    metrics = Metrics()
    metrics.waited(0.125)
    metrics.refused("busy")
    told = {(sample.name, *sample.labels.values()): sample.value for sample in metrics.samples()}
    assert told["skydraft_queue_seconds_bucket", "0.25"] == 1
    assert told["skydraft_faults_total", "busy"] == 1
    shown = {name for name in counted(metrics) if name.startswith("skydraft_") and "_created" not in name}
    assert {name for name, *_ in told} == {name.partition(":")[0] for name in shown}
