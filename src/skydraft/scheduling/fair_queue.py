"""The order in which waiting work is served when a forward pass cannot take all of it."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class OfTenant(Protocol):
    """Waiting work. tenant: one of those among which the engine is shared; it may have many items."""

    @property
    def tenant(self) -> Hashable: ...


Item = TypeVar("Item", bound=OfTenant)


class FairQueue(Generic[Item]):
    """Tenants are given equal amounts of work, however many items each has and however much these ask for.

    What a tenant was given counts for as long as another has to wait: one that comes later, or comes again, begins
    level with the one that has had least.
    Source: start-time fair queueing, Goyal, Vin and Cheng 1996, with a tenant's virtual time in units of work.
    """

    def __init__(self) -> None:
        self._served: dict[Hashable, int] = {}

    def order(self, waiting: Iterable[Item]) -> Iterator[Item]:
        """All items, each when its tenant has been served least; those of one tenant in the order in which they came.

        Call `charge` for an item before the next is taken.
        """
        queues: dict[Hashable, deque[Item]] = {}
        for item in waiting:
            queues.setdefault(item.tenant, deque()).append(item)
        least = min((self._served[tenant] for tenant in queues if tenant in self._served), default=0)
        self._served = {tenant: self._served.get(tenant, least) for tenant in queues}
        heap = [(served, number, tenant) for number, (tenant, served) in enumerate(self._served.items())]
        heapq.heapify(heap)
        while heap:
            _, number, tenant = heapq.heappop(heap)
            yield queues[tenant].popleft()
            if queues[tenant]:
                heapq.heappush(heap, (self._served[tenant], number, tenant))

    def charge(self, tenant: Hashable, amount: int) -> None:
        """Some work was done for a tenant."""
        self._served[tenant] += amount

    def reset(self) -> None:
        """All that waited was served: nothing is owed to any tenant."""
        self._served.clear()
