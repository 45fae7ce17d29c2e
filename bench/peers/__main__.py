"""`python -m bench.peers`: skydraft beside what else serves a pair of GGUF files, over the same emulated link.

Greedy texts of the same prompts by the same two files, in turn: llama.cpp's server alone, with the draft beside the
target, tightwad (draft on the device, target in the cloud), and skydraft. Device and cloud have a core each; models and
servers stay loaded, and keep what they have read as they do by default: none is asked a prompt twice. The peers run
with a Python of their own (`make bench-peers` makes it). Rows are added to a file: a run takes up where the last one
stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import msgspec
from rich.console import Console
from rich.table import Table

from bench.claims import RESULTS, machine
from bench.network.device import Arrivals
from bench.peers.servers import ALONE, Peer, running_peers
from bench.peers.streaming import stream_text
from bench.real.pair import Pair, PairMissing, TextKey, find_pair, words
from bench.real.row_file import RowFile
from bench.real.site import CLOUD, Site, open_site
from bench.real.speed import AUTO, CLOUD_CORE, DEVICE_CORE, pin_process
from skydraft.errors import SkydraftError

ROWS = RESULTS / "peers.jsonl"
PYTHON = Path(".venv-peers/bin/python")
ROUND_TRIPS_MS = (0.0, 50.0, 100.0)
KINDS = ("chat", "code")
NUM_TEXTS = 5  # of a kind and round trip
FIRST = 10  # of the prompts of a kind
NUM_TOKENS = 32
WAYS = {"skydraft": AUTO, "skydraft, cloud alone": CLOUD}


class PeerRow(msgspec.Struct, frozen=True):
    """One text. tokens_per_s: behind the first arrival. up_bytes, down_bytes: of TCP's payload, towards the cloud and
    back. load: programs that wanted a core meanwhile, on average of the last minute."""

    name: str
    round_trip_ms: float
    kind: str
    number: int
    tokens: int
    tokens_per_s: float
    first_token_s: float
    up_bytes: int
    down_bytes: int
    load: float
    text: str

    @property
    def place(self) -> tuple[float, str, int]:
        """What the same text has under every name."""
        return self.round_trip_ms, self.kind, self.number


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    file = RowFile(None if options.dry else ROWS, PeerRow)
    if not options.report:
        try:
            asyncio.run(_measure(find_pair(), options, file))
        except (PairMissing, SkydraftError, OSError, httpx.HTTPError) as error:
            print(error, file=sys.stderr)
            return 1
    print_rows(file.rows)
    return 0


async def _measure(pair: Pair, options: argparse.Namespace, file: RowFile[PeerRow]) -> None:
    done = {(row.name, *row.place) for row in file.rows}
    os.sched_setaffinity(0, {DEVICE_CORE})
    async with running_peers(pair, options.python) as peers, AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient())
        # A cloud for each way: what one has read of a prompt the other would find.
        sites = {name: await stack.enter_async_context(open_site(pair, keeps_prompts=True)) for name in WAYS}
        until_s = time.monotonic() + 60 * options.minutes
        for site in sites.values():
            pin_process(site.cloud.process_id, {CLOUD_CORE})
        for name, way in WAYS.items():  # what is done once is done now
            await sites[name].write(TextKey("story", 0, 0.0), way, num_tokens=4)
        for number in range(NUM_TEXTS):
            for turn, round_trip_ms in enumerate(ROUND_TRIPS_MS):
                for kind in KINDS:
                    place = (round_trip_ms, kind, FIRST + len(ROUND_TRIPS_MS) * number + turn)
                    if time.monotonic() > until_s:
                        return
                    for peer in peers:
                        if (peer.name, *place) not in done:
                            file.add(await _ask(peer, client, pair, place))
                    for name, way in WAYS.items():
                        if (name, *place) not in done:
                            file.add(await _write(sites[name], name, way, place))


async def _ask(peer: Peer, client: httpx.AsyncClient, pair: Pair, place: tuple[float, str, int]) -> PeerRow:
    assert pair.render is not None
    prompt = pair.render(words(TextKey(place[1], place[2], 0.0)))
    peer.set_round_trip(place[0])
    before = peer.link.carried
    text, arrivals = await stream_text(
        client, peer.url, prompt, NUM_TOKENS, lambda text: len(pair.tokenizer.encode_plain(text))
    )
    after = peer.link.carried
    return _row(
        peer.name, place, arrivals, after.up_bytes - before.up_bytes, after.down_bytes - before.down_bytes, text
    )


async def _write(site: Site, name: str, way: str, place: tuple[float, str, int]) -> PeerRow:
    site.set_round_trip(place[0])
    before, arrivals = site.link.carried, Arrivals(None)
    report = await site.write(TextKey(place[1], place[2], 0.0), way, arrivals.note_text, num_tokens=NUM_TOKENS)
    after = site.link.carried
    up_bytes, down_bytes = after.up_bytes - before.up_bytes, after.down_bytes - before.down_bytes
    return _row(name, place, arrivals, up_bytes, down_bytes, report.text)


def _row(
    name: str, place: tuple[float, str, int], arrivals: Arrivals, up_bytes: int, down_bytes: int, text: str
) -> PeerRow:
    counts, times_s = arrivals.counts, arrivals.times_s
    pause_s = times_s[-1] - times_s[0]
    return PeerRow(
        name,
        *place,
        tokens=sum(counts),
        tokens_per_s=round(sum(counts[1:]) / pause_s, 3) if pause_s else 0.0,
        first_token_s=round(times_s[0], 4),
        up_bytes=up_bytes,
        down_bytes=down_bytes,
        load=round(os.getloadavg()[0], 2),
        text=text,
    )


def print_rows(rows: Sequence[PeerRow]) -> None:
    """Medians, in the order of the round trips and of the names."""
    table = Table(title=machine(), title_justify="left", box=None, pad_edge=False)
    for heading in ("ms", "kind", "", "tokens/s", "first token, s", "bytes up", "bytes down", "texts", "as alone"):
        table.add_column(heading, justify="left" if not heading else "right")
    for (round_trip_ms, kind, name), some in grouped(rows).items():
        table.add_row(
            f"{round_trip_ms:g}",
            kind,
            name,
            f"{statistics.median(row.tokens_per_s for row in some):.1f}",
            f"{statistics.median(row.first_token_s for row in some):.2f}",
            f"{statistics.median(row.up_bytes for row in some):,.0f}",
            f"{statistics.median(row.down_bytes for row in some):,.0f}",
            f"{len(some)}",
            f"{num_equal(some, rows)}",
        )
    Console(width=120).print(table)


def grouped(rows: Sequence[PeerRow]) -> dict[tuple[float, str, str], list[PeerRow]]:
    """Rows by round trip, kind and name."""
    groups: dict[tuple[float, str, str], list[PeerRow]] = {}
    for row in sorted(rows, key=lambda row: (row.round_trip_ms, row.kind)):
        groups.setdefault((row.round_trip_ms, row.kind, row.name), []).append(row)
    return groups


def num_equal(some: Sequence[PeerRow], rows: Sequence[PeerRow]) -> int:
    """How many texts are those of llama.cpp alone, as far as both go: peers end a text at other lengths."""
    alone = {row.place: row.text for row in rows if row.name == ALONE}
    pairs = [(row.text, alone[row.place]) for row in some if row.place in alone]
    return sum(text.startswith(other) or other.startswith(text) for text, other in pairs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no text later")
    parser.add_argument("--python", type=Path, default=PYTHON, help="that has xllamacpp and tightwad")
    parser.add_argument("--report", action="store_true", help="print the rows that there are")
    parser.add_argument("--dry", action="store_true", help="read and keep no rows")
    return parser


if __name__ == "__main__":
    sys.exit(main())
