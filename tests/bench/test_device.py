"""Real processes and sockets, with tables in place of models."""

from __future__ import annotations

from dataclasses import dataclass

from bench.network.capture import Capture
from bench.network.device import Device
from bench.network.profiles import Profile
from bench.network.rows import Cell, Key, Texts
from bench.network.testbed import open_site

TARGET = "table:vocab=64,seed=3,order=2,sharpness=3"
MODES = ("cloud", "edge", "wait:2", "tree", "auto", "naive")
CELL = Cell("P-T", "noisy", 0.8, 20, 10)


@dataclass(frozen=True)
class TableProfile(Profile):
    @property
    def target(self) -> str:
        return f"paced:{self.cloud_pace}:{TARGET}"

    def draft(self, name: str) -> str:
        return f"paced:{self.draft_pace}:{TARGET},noise=1"


class OnePrompt:
    def index(self, run: int) -> int:
        return 0

    def __getitem__(self, run: int) -> tuple[int, ...]:
        return (1, 2, 3)


async def test_all_modes_write_one_text_through_the_link_and_say_what_it_took() -> None:
    profile = TableProfile("P-T", "tables", 2, 8)
    async with open_site(profile, is_pinned=False) as site:
        await site.set_link(CELL.round_trip_ms, CELL.rate_mbps)
        try:
            captures = {server.linked.port: Capture(server.linked.port) for server in (site.cloud, site.naive)}
        except OSError:
            captures = {}
        device = Device(profile, site, OnePrompt(), captures)  # type: ignore[arg-type]
        rows = {mode: await device.measure(Key(CELL, mode, 0, 24)) for mode in MODES}
        device.close()
        for capture in captures.values():
            capture.close()
    texts = Texts()
    for row in rows.values():
        texts.check(row)
        assert row.tokens == 24
        if row.mode != "edge":
            assert row.first_token_s >= (2 if row.mode == "naive" else 3) * CELL.round_trip_ms / 1000
            assert row.cloud.num_passes > 0
        if captures and row.mode != "edge":
            assert row.wire is not None
            assert row.wire.up > row.up_bytes
            assert row.wire.down > row.wire.steady_down > 0
    assert rows["edge"].up == {}
    assert rows["naive"].up_bytes > rows["wait:2"].up_bytes
    assert rows["cloud"].positions == 24
