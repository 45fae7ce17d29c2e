"""The time line of a text, in virtual time: to scale, and with the report's own figures."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from skydraft.core import AcceptanceRule, Exact, Mode, Origin, Rank
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.patience import Patience
from skydraft.edge.report import Report, joined
from skydraft.edge.timeline import Grown, Round, Span, TimeLine
from skydraft.edge.writer import Writer
from skydraft.engines.emulated.paced import Pace
from skydraft.policies.way import parse_way
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings
from tests.cli.made_up import report
from tests.edge.test_writer import DRAFT, JOB, TARGET, changed
from tests.linked import table
from tests.virtual_cloud import in_pace, virtual_cloud
from tests.virtual_time import in_virtual_time

PASS_S, STEP_S, ROUND_TRIP_S = 0.030, 0.010, 0.050
PATH = PathSettings(delay_ms=1000 * ROUND_TRIP_S / 2)
BRIEF_S = 0.002  # what turns of the event loop take


async def write(pulled_after_s: float | None = None, **changes: Any) -> Report:
    """With a cloud that needs PASS_S for a pass and a draft model that needs STEP_S, ROUND_TRIP_S apart."""
    settings = LinkSettings(up=PATH, down=PATH, cut_after_s=pulled_after_s)
    async with (
        virtual_cloud(in_pace(table(TARGET), Pace(step_ms=1000 * PASS_S))) as url,
        Link(Address("127.0.0.1", urlsplit(url).port or 0), settings) as link,
    ):
        writer = Writer(in_pace(table(DRAFT), Pace(step_ms=1000 * STEP_S)))
        try:
            job = changed(JOB, address=CloudAddress(f"ws://{link.address}"), **changes)
            return await writer.write(job, lambda _: None)
        finally:
            writer.close()


def require_own_figures(report: Report) -> None:
    """What the time line says is what the report says."""
    line = report.time_line
    assert [each.number for each in line.rounds] == list(range(1, report.rounds + 1))
    assert sum(each.num_drafted for each in line.rounds) == report.num_drafted
    assert sum(each.num_accepted for each in line.rounds) == report.num_by_origin[Origin.ACCEPTED]
    for each in line.rounds:
        assert sum(token.round == each.number for token in report.tokens) == each.num_tokens
    assert sum(grown.num_tokens for grown in line.grown) == len(report.tokens)
    assert line.grown[0].at_s == pytest.approx(report.first_token_s, abs=BRIEF_S)
    assert line.grown[-1].at_s <= report.total_s


@pytest.mark.parametrize("rule", [Exact(), Rank(2)])
@in_virtual_time
async def test_of_each_round_draft_way_and_judging_are_to_scale(rule: AcceptanceRule) -> None:
    report = await write(rule=rule, way=parse_way("wait:3"), block_length=3)
    require_own_figures(report)
    line = report.time_line
    assert len(line.rounds) > 5
    for each in line.rounds[1:]:  # the first waits for the prompt, before a ping came back
        (sent_s,) = each.sent_s
        assert each.round_trip_s == pytest.approx(ROUND_TRIP_S, abs=BRIEF_S)
        assert each.answered_s - sent_s == pytest.approx(ROUND_TRIP_S + PASS_S, abs=2 * BRIEF_S)
        assert each.at_cloud.start_s - sent_s == pytest.approx(ROUND_TRIP_S / 2, abs=BRIEF_S)
        assert each.at_cloud.end_s - each.at_cloud.start_s == pytest.approx(PASS_S, abs=2 * BRIEF_S)
    for span in line.drafted:
        assert span.end_s - span.start_s >= STEP_S - BRIEF_S
    assert not line.dropped


@in_virtual_time
async def test_rounds_that_are_in_flight_at_once_overlap() -> None:
    report = await write(way=parse_way("pipelined:2"))
    require_own_figures(report)
    pairs = zip(report.time_line.rounds, report.time_line.rounds[1:], strict=False)
    assert any(later.sent_s and later.sent_s[0] < earlier.answered_s for earlier, later in pairs)
    assert report.time_line.dropped, "an offer behind one that failed is not answered"


@in_virtual_time
async def test_what_the_cloud_or_the_device_writes_alone_is_of_no_round() -> None:
    for mode in (Mode.CLOUD, Mode.EDGE):
        report = await write(mode=mode)
        require_own_figures(report)
        assert not report.time_line.rounds
        assert {token.round for token in report.tokens} == {None}
    assert len(report.time_line.drafted) >= len(report.tokens) - 1


@in_virtual_time
async def test_what_was_on_its_way_when_the_connection_broke_is_dropped() -> None:
    report = await write(0.5, way=parse_way("wait:3"), patience=Patience("wait", 30))
    require_own_figures(report)
    assert report.reconnects == 1
    (span,) = report.time_line.dropped
    assert span.end_s == pytest.approx(0.5, abs=0.1)


def test_without_a_ping_all_between_is_the_clouds_and_a_slow_ping_leaves_it_nothing() -> None:
    def round_of(round_trip_s: float | None, *sent_s: float) -> Round:
        return Round(1, sent_s, 2.0, round_trip_s, 3, 2, 3)

    assert round_of(None, 1.0, 1.5).at_cloud == Span(1.5, 2.0)
    assert round_of(0.2, 1.0).at_cloud == Span(1.1, 1.9)
    assert round_of(3.0, 1.0).at_cloud == Span(1.5, 1.5)
    assert round_of(0.2).at_cloud == Span(2.0, 2.0), "it left by a connection that was lost"


def test_windows_follow_one_another_and_their_rounds_are_numbered_on() -> None:
    line = TimeLine((Span(0, 1),), (Round(1, (1.0,), 2.0, None, 3, 2, 3),), (Span(1, 2),), (Grown(2.0, 3),))
    first, second = (report(time_line=line, total_s=2.5, rounds=1) for _ in range(2))
    whole = joined([first, second])
    assert whole.time_line.rounds[1] == Round(2, (3.5,), 4.5, None, 3, 2, 3)
    assert whole.time_line.drafted[1] == Span(2.5, 3.5)
    assert whole.time_line.dropped[1] == Span(3.5, 4.5)
    assert whole.time_line.grown[1] == Grown(4.5, 3)
    assert whole.total_s == 5.0
