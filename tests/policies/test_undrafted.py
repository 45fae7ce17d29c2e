from __future__ import annotations

from dataclasses import replace

import pytest

from skydraft.policies.throughput import Conditions, free_running_tokens_per_s, turns_tokens_per_s
from skydraft.policies.undrafted import Undrafted, why_undrafted

PAYS = Conditions(draft_s=0.01, verify_s=0.06, step_s=0.06, round_trip_s=0.02, run_length=8.0)


@pytest.mark.parametrize(
    ("conditions", "why"),
    [
        (PAYS, None),
        (replace(PAYS, draft_s=0.06), Undrafted.SLOW_DRAFT),
        (replace(PAYS, round_trip_s=2.0), Undrafted.FAR),
        (replace(PAYS, run_length=0.1), Undrafted.WRONG),
        (replace(PAYS, node_s=0.06), Undrafted.NO_GAIN),
    ],
)
def test_the_reason_is_that_without_which_drafts_would_pay(conditions: Conditions, why: Undrafted | None) -> None:
    assert why_undrafted(free_running_tokens_per_s, conditions, 1.02) is why


def test_in_turns_too() -> None:
    assert why_undrafted(turns_tokens_per_s, PAYS, 1.02) is None
    assert why_undrafted(turns_tokens_per_s, replace(PAYS, node_s=0.06), 1.02) is Undrafted.NO_GAIN
