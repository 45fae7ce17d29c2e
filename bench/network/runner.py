"""Runs a selection of the grid: modes side by side, run by run, in workers; resumes where it stopped."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgspec

from bench.network.capture import Capture
from bench.network.device import Device
from bench.network.profiles import PROFILES
from bench.network.rows import Cell, Key, Row, Texts, append_row, load_rows, prepare_file
from bench.network.testbed import Site, open_site
from bench.network.texts import Prompts
from skydraft.errors import SkydraftError

LATE_SHARE = 0.02  # of a text's time: a text whose passes were later than this is measured again
MAX_ATTEMPTS = 3

Show = Callable[[str], None]


@dataclass(frozen=True)
class Selection:
    """What to measure."""

    profiles: Sequence[str]
    drafts: Sequence[str]
    temperatures: Sequence[float]
    round_trips_ms: Sequence[float]
    rates_mbps: Sequence[float]
    modes: Sequence[str]
    num_runs: int
    num_tokens: int

    def cells(self, profile: str) -> Iterator[Cell]:
        """Of a profile; one that has a link of its own is measured with that."""
        own_ms = PROFILES[profile].round_trip_ms
        for round_trip_ms in self.round_trips_ms if own_ms is None else (own_ms,):
            for rate_mbps in self.rates_mbps:
                for draft in self.drafts:
                    for temperature in self.temperatures:
                        yield Cell(profile, draft, temperature, round_trip_ms, rate_mbps)

    def keys(self, cell: Cell, run: int) -> list[Key]:
        return [Key(cell, mode, run, self.num_tokens) for mode in self.modes]


class Round(msgspec.Struct, frozen=True):
    """One run of one cell: all its modes that are not measured yet, one after the other."""

    profile: str
    keys: list[Key]


class WorkerFailed(Exception):
    """A worker ended; with its own words."""


def rounds_to_do(selection: Selection, done: set[Key]) -> list[Round]:
    """Run by run, and in each run cell by cell: a bad minute hits all modes, and few runs of all come early."""
    rounds = []
    for profile in selection.profiles:
        cells = list(selection.cells(profile))
        for run in range(selection.num_runs):
            for cell in cells:
                keys = [key for key in selection.keys(cell, run) if key not in done]
                if keys:
                    rounds.append(Round(profile, keys))
    return rounds


def run_selection(selection: Selection, out: Path, num_workers: int, show: Show) -> list[Row]:
    """Measure what the file lacks, adding to it line by line.

    Returns:
        All rows of the file.
    Raises:
        TextsDiffer: two modes wrote different texts.
        WorkerFailed: a cloud or a link did not start, or was lost.
        ConfigError: the file holds something else.
    """
    prepare_file(out)
    rows, texts = load_rows(out), Texts()
    for row in rows:
        texts.check(row)
    rounds = rounds_to_do(selection, {row.key for row in rows})
    show(f"{sum(len(round_.keys) for round_ in rounds)} texts to measure, {len(rows)} are in {out}")
    with ExitStack() as stack:
        for row in _measured(rounds, num_workers, stack):
            append_row(out, row)
            show(_sentence(row))
            texts.check(row)
            rows.append(row)
    return rows


def _sentence(row: Row) -> str:
    marks = "" if row.late_share <= LATE_SHARE else f"  late by {row.late_share:.1%} of the time"
    return f"{row.cell}, run {row.run}, {row.mode}: {row.flow:.1f} tokens/s, first {row.first_token_s:.3f} s{marks}"


def _measured(rounds: Sequence[Round], num_workers: int, stack: ExitStack) -> Iterator[Row]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    shares = [share for share in _shares(rounds, num_workers) if share]
    workers: list[BaseProcess] = []
    for share in shares:
        worker = context.Process(target=_work, args=(share, num_workers == 1, results))
        worker.start()
        workers.append(worker)
        stack.callback(_end, worker)
    num_running = len(workers)
    while num_running:
        try:
            result = results.get(timeout=1.0)
        except queue.Empty:
            if any(worker.exitcode not in (None, 0) for worker in workers):
                raise WorkerFailed("a worker of the bench died") from None
            continue
        if isinstance(result, Row):
            yield result
        elif result is None:
            num_running -= 1
        else:
            raise WorkerFailed(str(result))


def _shares(rounds: Sequence[Round], num_workers: int) -> list[list[Round]]:
    """A cell stays with one worker: what its device learnt serves the cell's next run."""
    cells = list(dict.fromkeys(round_.keys[0].cell for round_ in rounds))
    worker_of = {cell: index % num_workers for index, cell in enumerate(cells)}
    return [[item for item in rounds if worker_of[item.keys[0].cell] == index] for index in range(num_workers)]


def _end(worker: BaseProcess) -> None:
    worker.join(1.0)
    if worker.is_alive():
        worker.terminate()
        worker.join()


# In a worker


def _work(rounds: Sequence[Round], is_pinned: bool, results: multiprocessing.Queue[Row | str | None]) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the servers too
    try:
        asyncio.run(_measure_all(rounds, is_pinned, results))
        results.put(None)
    except (SkydraftError, OSError, HTTPException) as error:
        results.put(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        sys.exit(1)


async def _measure_all(
    rounds: Sequence[Round], is_pinned: bool, results: multiprocessing.Queue[Row | str | None]
) -> None:
    parent, prompts = os.getppid(), Prompts()
    for name in dict.fromkeys(round_.profile for round_ in rounds):
        async with open_site(PROFILES[name], is_pinned) as site:
            with ExitStack() as stack:
                device = Device(PROFILES[name], site, prompts, _captures(site, stack))
                stack.callback(device.close)
                for round_ in (item for item in rounds if item.profile == name):
                    cell = round_.keys[0].cell
                    await site.set_link(cell.round_trip_ms, cell.rate_mbps)
                    for key in round_.keys:
                        results.put(await measure(device, key))
                        if os.getppid() != parent:
                            return  # nobody is there any more


async def measure(device: Device, key: Key) -> Row:
    """One text; again where the emulation did not keep its pace, and then the best of the attempts."""
    attempts: list[Row] = []
    while len(attempts) < MAX_ATTEMPTS:
        attempts.append(await device.measure(key))
        if attempts[-1].late_share <= LATE_SHARE:
            break
    best = min(attempts, key=lambda row: row.late_share)
    return msgspec.structs.replace(best, attempts=len(attempts))


def _captures(site: Site, stack: ExitStack) -> dict[int, Capture]:
    captures = {}
    for server in (site.cloud, site.naive):
        try:
            captures[server.linked.port] = Capture(server.linked.port)
        except OSError:  # not permitted, or no such system: rows say nothing of the wire
            return {}
        stack.callback(captures[server.linked.port].close)
    return captures
