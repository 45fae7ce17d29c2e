from __future__ import annotations

import pytest

from skydraft.cloud.access.account import Account
from skydraft.cloud.access.keys import Holder, KeyGrant

HOUR_S = 3600.0


def account(tokens_per_minute: int) -> Account:
    return Account(Holder("alice", KeyGrant(tokens_per_minute=tokens_per_minute)), 0.0)


def limited(account: Account, tokens_per_minute: int, now_s: float) -> None:
    account.change_grant(KeyGrant(tokens_per_minute=tokens_per_minute), now_s)


def test_a_key_that_wrote_without_a_limit_owes_nothing_when_it_is_given_one() -> None:
    alice = account(0)
    for minute in range(60):
        alice.spend(10_000, 60.0 * minute)
        assert alice.wait_s(60.0 * minute) == 0
    limited(alice, 60, HOUR_S)
    alice.spend(59, HOUR_S)
    assert alice.wait_s(HOUR_S) == 0
    alice.spend(1, HOUR_S)
    assert alice.wait_s(HOUR_S) == 6


@pytest.mark.parametrize(("before", "after"), [(60_000, 60), (60, 60_000)])
def test_what_was_written_under_one_limit_is_not_owed_under_another(before: int, after: int) -> None:
    alice = account(before)
    alice.spend(2 * before, 0.0)
    assert alice.wait_s(0.0) == 66
    limited(alice, after, 1.0)
    assert alice.wait_s(1.0) == 0
    alice.spend(after, 1.0)
    assert alice.wait_s(1.0) == 6


def test_a_file_that_says_the_same_of_tokens_forgives_nothing() -> None:
    alice = account(60)
    alice.spend(120, 0.0)
    alice.change_grant(KeyGrant(max_sessions=3, tokens_per_minute=60), 1.0)
    assert alice.wait_s(1.0) == 65
    assert alice.grant.max_sessions == 3


def test_a_key_whose_limit_is_lifted_waits_for_nothing_and_saves_nothing_up() -> None:
    alice = account(60)
    alice.spend(120, 0.0)
    limited(alice, 0, 1.0)
    assert alice.wait_s(1.0) == 0
    limited(alice, 60, HOUR_S)
    alice.spend(61, HOUR_S)
    assert alice.wait_s(HOUR_S) == 7
