"""Pings and looks at a cloud: what the tests of whole texts do not come by."""

from __future__ import annotations

import asyncio

import pytest

from skydraft.edge import measuring
from skydraft.errors import TransportError
from skydraft.policies.planner import Planner


class ThawingLink:
    """Not connected at first; its first ping gets no answer."""

    num_asked = num_pings = 0

    @property
    def is_connected(self) -> bool:
        self.num_asked += 1
        return self.num_asked > 2

    async def round_trip_s(self) -> float:
        self.num_pings += 1
        if self.num_pings == 1:
            raise TransportError("frozen")
        return 0.02


async def test_a_ping_without_an_answer_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "PING_PERIOD_S", 0.0)
    monkeypatch.setattr(measuring, "CONNECT_PERIOD_S", 0.0)
    planner = Planner()
    watching = asyncio.create_task(measuring.watch_link(ThawingLink(), planner))  # type: ignore[arg-type]
    for _ in range(100):
        await asyncio.sleep(0)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert planner.estimates.round_trip_s == 0.02
