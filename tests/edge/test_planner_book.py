from __future__ import annotations

from skydraft.core import Objective, PassTimes
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.planner_book import MAX_KINDS, PlannerBook

ADDRESS = CloudAddress("ws://127.0.0.1:9")


def test_texts_at_the_same_time_have_a_planner_each() -> None:
    book = PlannerBook(None)
    with (
        book.planner(ADDRESS, Objective.LATENCY, None) as one,
        book.planner(ADDRESS, Objective.LATENCY, None) as other,
    ):
        assert one is not other
        assert one.estimates is not other.estimates


def test_what_the_text_that_ended_last_has_learnt_serves_the_next() -> None:
    book = PlannerBook(None)
    with book.planner(ADDRESS, Objective.LATENCY, None) as one:
        with book.planner(ADDRESS, Objective.LATENCY, None) as other:
            other.saw_ping(0.2)
        one.saw_ping(0.1)
    with book.planner(ADDRESS, Objective.LATENCY, None) as next_one:
        assert next_one.estimates.round_trip_s == 0.1
    with book.planner(ADDRESS, Objective.COST, None) as another_kind:
        assert another_kind.estimates.round_trip_s is None


def test_a_planner_knows_what_draft_passes_take_and_whether_the_cloud_is_near() -> None:
    with PlannerBook(PassTimes(0.01, 0.001)).planner(ADDRESS, Objective.LATENCY, None) as planner:
        assert planner.estimates.is_near
        assert planner.estimates.draft_s.at(1) == 0.01


def test_clouds_that_come_and_go_do_not_fill_memory() -> None:
    book = PlannerBook(None)
    for port in range(2 * MAX_KINDS):
        with book.planner(CloudAddress(f"ws://127.0.0.1:{port + 1}"), Objective.LATENCY, None):
            pass
    assert len(book._known) == MAX_KINDS
