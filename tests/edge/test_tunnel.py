"""`--offline tunnel` in virtual time: the cable is pulled while a text is written, and plugged in again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from skydraft.config import DeviceSettings
from skydraft.core import Origin, SamplingParams, TextPiece, Token, tokens_of
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.patience import Patience
from skydraft.edge.report import Report
from skydraft.edge.writer import Writer
from skydraft.engines.base import Engine, Extension
from skydraft.engines.emulated.paced import Pace
from skydraft.sampling.choice import target_choices
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings
from tests.edge.test_writer import DRAFT, JOB, TARGET, changed
from tests.linked import PROMPT, table
from tests.virtual_cloud import in_pace, virtual_cloud
from tests.virtual_time import in_virtual_time

WAIT_S, GOES_ON_S = 0.25, 0.3
AWAY_S = 1.0  # that the cable is pulled
PULLED_AT = 40  # tokens
SAMPLING = SamplingParams(temperature=0.8, seed=3, max_tokens=300)
SETTINGS = DeviceSettings(offline="tunnel", tunnel_wait_s=WAIT_S)
PATH = PathSettings(delay_ms=25)


class Reader:
    """Sees a text come, and pulls the cable."""

    def __init__(self, link: Link, pulled_at: Sequence[int]) -> None:
        self.tokens: list[Token] = []
        self.seen_s: list[float] = []
        self.pulled_s: list[float] = []
        self._link = link
        self._pulled_at = list(pulled_at)

    def take(self, pieces: Sequence[TextPiece]) -> None:
        tokens = tokens_of(pieces)
        self.tokens += tokens
        self.seen_s += [time.monotonic()] * len(tokens)
        if self._pulled_at and len(self.tokens) >= self._pulled_at[0]:
            self._pulled_at.pop(0)
            self.pulled_s.append(time.monotonic())
            self._link.freeze(AWAY_S)

    def waited_s(self, pulled_s: float) -> float:
        """For the first token after the cable was pulled."""
        return next(seen_s for seen_s in self.seen_s if seen_s > pulled_s) - pulled_s


@asynccontextmanager
async def linked_cloud() -> AsyncIterator[Link]:
    """A cloud behind a link of 50 ms, a token each 30 ms."""
    async with virtual_cloud(in_pace(table(TARGET), Pace(step_ms=30))) as url:
        upstream = Address("127.0.0.1", urlsplit(url).port or 0)
        async with Link(upstream, LinkSettings(up=PATH, down=PATH)) as link:
            yield link


async def write(link: Link, reader: Reader, said: list[str]) -> Report:
    writer = Writer(in_pace(table(DRAFT), Pace(step_ms=10)))
    address = CloudAddress(f"ws://{link.address}")
    job = changed(JOB, address=address, sampling=SAMPLING, patience=Patience.of(SETTINGS))
    try:
        return await writer.write(job, reader.take, said.append)
    finally:
        writer.close()


def choices(engine: Engine, token_ids: Sequence[int]) -> list[int]:
    """What a model chooses at each place of a text."""
    slot, row = engine.open(PROMPT)[:2]
    (rows,) = engine.extend([Extension.chain(slot, token_ids)])
    return target_choices(row[None, :], SAMPLING, [0]) + target_choices(rows, SAMPLING, range(1, len(token_ids) + 1))


@pytest.mark.parametrize("pulled_at", [[PULLED_AT], [1], [PULLED_AT, 180]])
@in_virtual_time
async def test_a_text_goes_on_when_the_cable_is_pulled_and_with_the_cloud_when_it_is_back(pulled_at: list[int]) -> None:
    said: list[str] = []
    async with linked_cloud() as link:
        reader = Reader(link, pulled_at)
        report = await write(link, reader, said)
    assert len(reader.pulled_s) == len(pulled_at)
    assert max(map(reader.waited_s, reader.pulled_s)) <= GOES_ON_S
    assert reader.tokens == list(report.tokens)  # nothing is lost or doubled
    assert len(report.tokens) == SAMPLING.max_tokens
    # Every token is marked with who wrote it, and that one's choice after the text before it.
    ids = [token.token_id for token in report.tokens]
    own, theirs = choices(table(DRAFT), ids), choices(table(TARGET), ids)
    for token, edge_id, cloud_id in zip(report.tokens, own, theirs, strict=False):
        assert token.token_id == (edge_id if token.origin is Origin.EDGE else cloud_id)
    assert report.is_alone
    assert 20 < report.num_by_origin[Origin.EDGE] < len(pulled_at) * 110
    assert report.tokens[-1].origin is not Origin.EDGE
    assert said.count("the cloud is back") == len(pulled_at)
    assert f"has not answered for {WAIT_S:g} s; the device goes on alone" in said[0]
