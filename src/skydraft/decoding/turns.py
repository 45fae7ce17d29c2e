"""Whose turn it is when a forward pass cannot take all that wait."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class Owned(Protocol):
    """What waits. owner: who shares what is given with all its others."""

    @property
    def owner(self) -> Hashable: ...


Item = TypeVar("Item", bound=Owned)


class Turns(Generic[Item]):
    """Owners are given equal amounts, however many items each has and however much these ask for.

    What an owner was given counts for as long as somebody goes without: who comes later, or comes again, begins level
    with the one who has had least.
    Source: start-time fair queueing, Goyal, Vin and Cheng 1996, with an owner's virtual time in units of work.
    """

    def __init__(self) -> None:
        self._given: dict[Hashable, int] = {}

    def order(self, waiting: Iterable[Item]) -> Iterator[Item]:
        """All items, each when its owner has been given least; of one owner in the order in which they came.

        Call `give` for an item before the next is taken.
        """
        queues: dict[Hashable, deque[Item]] = {}
        for item in waiting:
            queues.setdefault(item.owner, deque()).append(item)
        least = min((self._given[owner] for owner in queues if owner in self._given), default=0)
        self._given = {owner: self._given.get(owner, least) for owner in queues}
        heap = [(given, number, owner) for number, (owner, given) in enumerate(self._given.items())]
        heapq.heapify(heap)
        while heap:
            _, number, owner = heapq.heappop(heap)
            yield queues[owner].popleft()
            if queues[owner]:
                heapq.heappush(heap, (self._given[owner], number, owner))

    def give(self, owner: Hashable, amount: int) -> None:
        """An owner was given some work."""
        self._given[owner] += amount

    def settle(self) -> None:
        """All who waited were given what they asked for: nothing is owed."""
        self._given.clear()
