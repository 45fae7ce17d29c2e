from __future__ import annotations

from pathlib import Path

import pytest

from skydraft.core import Objective, PassTimes
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.kept_agreement import MAX_KEPT, KeptAgreement
from skydraft.edge.planner_book import MAX_KINDS, MAX_PLACES, PlannerBook
from skydraft.policies.confidence import Confidence

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
    for port in range(2 * MAX_PLACES):
        with book.planner(CloudAddress(f"ws://127.0.0.1:{port + 1}"), Objective.LATENCY, None):
            pass
    assert len(book._known) == MAX_PLACES


def write(book: PlannerBook, kind: str, num_right: int, num_wrong: int = 0) -> None:
    """A text of a kind, in which so many guesses are right, and then so many wrong."""
    with book.planner(ADDRESS, Objective.LATENCY, None, kind) as planner:
        for rank in [0] * num_right + [None] * num_wrong:
            planner.habits.confidence.observe([0.0, -1.0], rank)


def agreement(book: PlannerBook, kind: str) -> float:
    with book.planner(ADDRESS, Objective.LATENCY, None, kind) as planner:
        return planner.habits.confidence.agreement


def test_each_kind_of_text_begins_where_its_last_one_ended() -> None:
    book = PlannerBook(None)
    write(book, "code", 100)
    write(book, "talk", 0, 100)
    assert agreement(book, "code") > 0.9
    assert agreement(book, "talk") < 0.1


def test_a_kind_that_was_never_seen_begins_as_the_last_text_ended() -> None:
    book = PlannerBook(None)
    write(book, "talk", 0, 100)
    assert agreement(book, "news") < 0.1
    write(book, "news", 200)
    assert agreement(book, "talk") < 0.1  # what was learnt of the news is not of talk


def test_kinds_share_what_is_known_of_the_cloud() -> None:
    book = PlannerBook(None)
    with book.planner(ADDRESS, Objective.LATENCY, None, "code") as planner:
        planner.saw_ping(0.1)
    with book.planner(ADDRESS, Objective.LATENCY, None, "talk") as planner:
        assert planner.estimates.round_trip_s == 0.1


def test_kinds_that_come_and_go_do_not_fill_memory() -> None:
    book = PlannerBook(None)
    for number in range(MAX_KINDS + 9):
        write(book, str(number), 1)
    assert len(book._habits) == MAX_KINDS


def test_a_device_that_is_loaded_again_knows_how_well_the_models_agree(tmp_path: Path) -> None:
    book = PlannerBook(None, agreement=KeptAgreement("draft", "cloud.example", tmp_path))
    write(book, "code", 100)
    write(book, "talk", 0, 100)
    book.close()
    again = PlannerBook(None, agreement=KeptAgreement("draft", "cloud.example", tmp_path))
    assert agreement(again, "code") > 0.9
    assert agreement(again, "talk") < 0.1
    assert agreement(again, "news") < 0.1  # the last of any
    for pair in (("another draft", "cloud.example"), ("draft", "another.example")):
        other = PlannerBook(None, agreement=KeptAgreement(*pair, tmp_path))
        assert agreement(other, "code") == Confidence().agreement


def test_two_devices_of_one_user_keep_what_both_have_learnt(tmp_path: Path) -> None:
    books = [PlannerBook(None, agreement=KeptAgreement("draft", "cloud.example", tmp_path)) for _ in range(2)]
    for book, kind in zip(books, ("code", "talk"), strict=True):
        write(book, kind, 100)
    for book in books:
        book.close()
    kept = KeptAgreement("draft", "cloud.example", tmp_path)
    assert all(kept.find(kind) for kind in ("code", "talk"))


def test_the_file_names_no_cloud_and_no_kind_and_stays_small(tmp_path: Path) -> None:
    kept = KeptAgreement("draft", "cloud.example", tmp_path)
    for number in range(MAX_KEPT + 9):
        kept.note(f"secret {number}", Confidence())
    kept.save()
    text = (tmp_path / "agreement.json").read_text()
    assert "secret" not in text
    assert "cloud.example" not in text
    again = KeptAgreement("draft", "cloud.example", tmp_path)
    assert again.find("secret 8") is None
    assert again.find(f"secret {MAX_KEPT + 8}") is not None


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', '{"a": {"sharpness": 99, "miss": 0.1, "agreement": 0.5}}'])
def test_a_file_that_cannot_be_read_is_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "agreement.json").write_text(text)
    kept = KeptAgreement("draft", "cloud.example", tmp_path)
    assert kept.find("") is None
    kept.note("", Confidence())
    kept.save()
    assert KeptAgreement("draft", "cloud.example", tmp_path).find("") == Confidence()


def test_where_nothing_can_be_kept_the_device_works_all_the_same(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "missing"):
        book = PlannerBook(None, agreement=KeptAgreement("draft", "cloud.example", folder))
        write(book, "code", 100)
        book.close()
