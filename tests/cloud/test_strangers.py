from __future__ import annotations

import asyncio

import pytest

from skydraft.cloud.limits.strangers import STRANGER_S, Stranger, Strangers, peer_of
from tests.virtual_time import in_virtual_time


class Crowd:
    """Strangers by name, and those who were cut off, in order."""

    def __init__(self, num_places: int) -> None:
        self.strangers = Strangers(num_places)
        self.cut: list[str] = []

    def enter(self, name: str, peer: str) -> Stranger:
        stranger = Stranger(peer, lambda: self.cut.append(name))
        self.strangers.enter(stranger)
        return stranger


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("somewhere", "somewhere"),
    ],
)
def test_a_peer_is_an_address_or_the_network_of_one(host: str, peer: str) -> None:
    assert peer_of(host) == peer


async def test_where_all_places_are_taken_the_peer_with_most_loses_its_oldest() -> None:
    crowd = Crowd(4)
    crowd.enter("lone", "b")
    for name in ("a1", "a2", "a3"):
        crowd.enter(name, "a")
    crowd.enter("a4", "a")
    crowd.enter("other", "c")
    assert crowd.cut == ["a1", "a2"]
    assert len(crowd.strangers) == 4


async def test_among_peers_that_have_as_many_the_one_who_came_first_loses() -> None:
    crowd = Crowd(3)
    for peer in "abcd":
        crowd.enter(peer, peer)
    assert crowd.cut == ["a"]


@in_virtual_time
async def test_who_has_come_in_or_is_gone_takes_no_place_and_is_not_cut_off() -> None:
    crowd = Crowd(1)
    for name in ("first", "second"):
        stranger = crowd.enter(name, "a")
        assert stranger in crowd.strangers
        for _ in range(2):
            crowd.strangers.leave(stranger)
        assert stranger not in crowd.strangers
    await asyncio.sleep(2 * STRANGER_S)
    assert crowd.cut == []
    assert not crowd.strangers.cut_one()


@in_virtual_time
async def test_who_takes_too_long_is_cut_off() -> None:
    crowd = Crowd(5)
    crowd.enter("slow", "a")
    await asyncio.sleep(0.99 * STRANGER_S)
    assert crowd.cut == []
    await asyncio.sleep(0.02 * STRANGER_S)
    assert (crowd.cut, len(crowd.strangers)) == (["slow"], 0)
