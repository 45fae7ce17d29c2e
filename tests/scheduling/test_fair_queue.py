from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from skydraft.scheduling.fair_queue import FairQueue


class Item(NamedTuple):
    tenant: str
    number: int
    amount: int = 1


def served(fair_queue: FairQueue[Item], items: list[Item], room: int) -> list[Item]:
    """What a pass of this size takes."""
    taken = []
    for item in fair_queue.order(items):
        if item.amount <= room:
            room -= item.amount
            fair_queue.charge(item.tenant, item.amount)
            taken.append(item)
    return taken


def test_an_owner_with_many_items_gets_no_more_than_one_with_few() -> None:
    items = [Item("many", number) for number in range(10)] + [Item("few", 0), Item("few", 1)]
    assert Counter(item.tenant for item in served(FairQueue(), items, 4)) == {"many": 2, "few": 2}


def test_owners_get_the_same_amount_whatever_the_size_of_their_items() -> None:
    fair_queue, given = FairQueue[Item](), Counter[str]()
    items = [Item("large", number, 30) for number in range(20)] + [Item("small", number, 5) for number in range(100)]
    for _ in range(12):
        for item in served(fair_queue, items, 40):
            given[item.tenant] += item.amount
            items.remove(item)
    assert abs(given["large"] - given["small"]) <= 30


def test_of_one_owner_the_first_comes_first() -> None:
    items = [Item("one", number) for number in range(5)]
    assert served(FairQueue(), items, 3) == items[:3]


def test_what_was_given_while_there_was_enough_is_not_held_against_anybody() -> None:
    fair_queue = FairQueue[Item]()
    for _ in range(100):
        served(fair_queue, [Item("early", 0, 10)], 50)
        fair_queue.reset()
    items = [Item(tenant, number) for tenant in ("early", "late") for number in range(9)]
    assert Counter(item.tenant for item in served(fair_queue, items, 6)) == {"early": 3, "late": 3}


def test_who_comes_late_begins_level_with_who_has_had_least() -> None:
    fair_queue = FairQueue[Item]()
    both = [Item(tenant, number) for tenant in ("a", "b") for number in range(9)]
    for _ in range(10):
        served(fair_queue, both, 4)
    with_third = [*both, *(Item("c", number) for number in range(9))]
    given = Counter(item.tenant for _ in range(3) for item in served(fair_queue, with_third, 6))
    assert given == {"a": 6, "b": 6, "c": 6}
