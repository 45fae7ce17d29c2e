"""Listening while drafting: what the tests of whole texts do not come by."""

from __future__ import annotations

import asyncio

import pytest

from skydraft.core import Exact
from skydraft.decoding.edge_session import EdgeSession
from skydraft.edge import exact_writer as hybrid
from skydraft.edge.exact_writer import Hybrid
from skydraft.errors import TransportError
from skydraft.policies.planner import Planner
from tests.edge.test_writer import SAMPLING, TARGET
from tests.linked import PROMPT, table


class ThawingLink:
    """Its first ping gets no answer."""

    num_pings = 0

    async def round_trip_s(self) -> float:
        self.num_pings += 1
        if self.num_pings == 1:
            raise TransportError("frozen")
        return 0.02


async def test_a_ping_without_an_answer_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid, "PING_PERIOD_S", 0.0)
    session, planner = EdgeSession(table(TARGET).vocabulary, PROMPT, SAMPLING, Exact()), Planner()
    writing = Hybrid(session, ThawingLink(), None, planner, None, lambda: None)  # type: ignore[arg-type]
    watching = asyncio.create_task(writing._watch_link())
    await asyncio.sleep(0.05)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert planner.estimates.round_trip_s == 0.02
