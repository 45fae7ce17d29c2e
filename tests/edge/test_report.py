from __future__ import annotations

import pytest

from skydraft.edge.report import Unasked, joined
from tests.cli.made_up import features_record, report


@pytest.mark.parametrize(
    ("windows", "whole"),
    [
        ((Unasked.SURE, Unasked.SURE), Unasked.SURE),
        ((Unasked.DEAF,), Unasked.DEAF),
        ((Unasked.SURE, None), None),
        ((None, Unasked.SURE), None),
    ],
)
def test_a_cloud_was_not_asked_where_it_was_asked_about_no_window(
    windows: tuple[Unasked | None, ...], whole: Unasked | None
) -> None:
    assert joined([report(unasked=why) for why in windows]).unasked is whole


def test_the_counters_of_all_windows_are_added_and_theirs_are_left_as_they_were() -> None:
    windows = [report(), report(disclosure=features_record())]
    whole = joined(windows)
    assert whole.num_drafted == sum(window.num_drafted for window in windows)
    assert whole.disclosure.up.total() == sum(window.disclosure.up.total() for window in windows)
    assert whole.disclosure.has_evidence
    assert not windows[0].disclosure.has_evidence
    assert whole.text == f"{windows[0].text} {windows[1].text}"
