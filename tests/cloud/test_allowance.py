from __future__ import annotations

from skydraft.cloud.limits.allowance import Allowance


def test_what_was_saved_up_may_be_used_at_once_and_then_as_it_flows_in() -> None:
    allowance = Allowance(per_s=2.0, at_once=10.0)
    allowance.use(10.0, now_s=100.0)
    assert allowance.wait_s(100.0) == 0.0
    allowance.use(1.0, now_s=100.0)
    assert allowance.wait_s(100.0) == 0.5
    assert allowance.wait_s(100.5) == 0.0


def test_no_more_is_saved_up_than_may_be() -> None:
    allowance = Allowance(per_s=2.0, at_once=10.0)
    allowance.use(11.0, now_s=1e9)
    assert allowance.wait_s(1e9) == 0.5


def test_what_was_used_beyond_it_is_owed() -> None:
    allowance = Allowance(per_s=2.0, at_once=10.0)
    for _ in range(5):
        allowance.use(10.0, now_s=100.0)
    assert allowance.wait_s(100.0) == 20.0
    assert allowance.wait_s(119.0) == 1.0
