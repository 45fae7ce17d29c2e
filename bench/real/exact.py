"""Is the text of both together the cloud's own, with real models and whatever befalls them?"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

from bench.claims import Claim
from bench.real.pair import KINDS, MAX_LENGTH, NUM_TOKENS, Pair, TextKey, text_keys
from bench.real.row_file import RowFile
from bench.real.site import CLOUD, OnText, Site, open_site
from skydraft.core import Objective, TextPiece, tokens_of
from skydraft.edge.report import Report
from skydraft.engines.base import Engine, Extension
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.sampling.guesses import best_guesses

WAYS = ("wait:4", "tree", "auto")
TURNS = ("wait:4", "auto", "tree", "wait:4", "auto")  # a tree has the cloud read seven positions for each token
CUT, KILL, CROWD, NONE = "cut", "kill", "crowd", "none"
# Take turns. A killed cloud takes long to come back, and a crowd to be read again after each eviction.
TROUBLES = (NONE, CUT, KILL, CUT, NONE, CUT, *[CROWD] * 4, NONE, CUT, CUT, NONE, CUT, NONE)
CROWD_SIZE = 4  # devices at once, on a cloud with two slots: they are evicted all the time
ROUND_TRIP_MS = 20.0
BEFORE_TROUBLE = 4  # tokens of the text at least, and three quarters of it at most
MAX_REFUSE_S = 0.2  # after a cut


class Plan(NamedTuple):
    """A text to write. trouble: what befalls it."""

    key: TextKey
    way: str
    trouble: str


class ExactRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One text, written by the cloud alone (way "cloud") or by both.

    token_ids: of the cloud's own text.
    differs_at: the first position where the text is not the cloud's own; None: it is.
    gap: between the target's two best there, in logits (scores with the shared noise, times the temperature).
    reconnects, rounds, positions, is_cloud_text, num_near_ties: as in the report.
    up, down: payload bytes, the prompt left out.
    processor: that both ran on: another kind computes other bits, so there the cloud writes its texts anew.
    """

    kind: str
    number: int
    temperature: float
    way: str
    trouble: str
    tokens: int
    seconds: float
    first_token_s: float
    rounds: int
    positions: int
    reconnects: int
    up: int
    down: int
    is_cloud_text: bool = True
    num_near_ties: int | None = 0
    token_ids: tuple[int, ...] = ()
    differs_at: int | None = None
    gap: float | None = None
    processor: str = ""

    @property
    def plan(self) -> Plan:
        return Plan(TextKey(self.kind, self.number, self.temperature), self.way, self.trouble)


def plans(num_each: int, num_times: int) -> list[Plan]:
    """Every text so many times, in different ways and troubles; these take turns, and so do kinds and temperatures."""
    once = text_keys(num_each)
    keys = once * num_times
    turns = [at + at // len(KINDS) + at // len(once) for at in range(len(keys))]  # each kind has every way
    return [
        Plan(key, TURNS[turn % len(TURNS)], TROUBLES[at % len(TROUBLES)])
        for at, (key, turn) in enumerate(zip(keys, turns, strict=True))
    ]


class Exactness:
    """Writes the texts that a file of rows lacks, until a time.

    Args:
        until_s: of `time.monotonic`; no text begins later.
    """

    def __init__(
        self,
        pair: Pair,
        file: RowFile[ExactRow],
        until_s: float,
        say: Callable[[str], None],
        num_tokens: int = NUM_TOKENS,
    ) -> None:
        self._pair, self._file, self._num_tokens = pair, file, num_tokens
        self._until_s, self._say = until_s, say
        self._rng = Random(0)
        self._target: Engine | None = None
        self._processor = processor_name()
        self._own = {row.plan.key: row for row in file.rows if row.way == CLOUD and row.processor == self._processor}

    def run(self, todo: Sequence[Plan]) -> None:
        done = {row.plan for row in self._file.rows}
        missing = [plan for plan in todo if plan not in done]
        self._say(f"{len(missing)} texts to write, {len(todo) - len(missing)} are there")
        if missing:
            asyncio.run(self._write_all(missing))

    async def _write_all(self, missing: Sequence[Plan]) -> None:
        # For the sake of speed `auto` would offer no draft: on a CPU judging one takes what writing a token takes.
        async with open_site(self._pair, objective=Objective.COST) as site:
            site.set_round_trip(ROUND_TRIP_MS)
            for group in _groups(missing):
                site.forget()
                if time.monotonic() > self._until_s:
                    return
                for plan in group:
                    await self._write_own(site, plan.key)
                reports = await asyncio.gather(*(self._write(site, plan, at) for at, plan in enumerate(group)))
                for plan, report in zip(group, reports, strict=True):
                    self._note(plan, report)

    async def _write_own(self, site: Site, key: TextKey) -> None:
        """What the cloud writes alone, once."""
        if key not in self._own:
            report = await site.write(key, CLOUD, num_tokens=self._num_tokens)
            row = self._row(Plan(key, CLOUD, NONE), report)
            self._own[key] = msgspec.structs.replace(row, token_ids=tuple(_ids(report)))
            self._file.add(self._own[key])

    async def _write(self, site: Site, plan: Plan, device: int) -> Report:
        coming: list[asyncio.Task[None]] = []

        def befall() -> None:
            if plan.trouble == CUT:
                site.link.cut(self._rng.uniform(0, MAX_REFUSE_S))
            elif plan.trouble == KILL:
                coming.append(asyncio.create_task(site.replace_cloud()))

        count = _after(self._rng.randint(BEFORE_TROUBLE, 3 * self._num_tokens // 4), befall)
        report = await site.write(plan.key, plan.way, count, device, self._num_tokens)
        await asyncio.gather(*coming)
        return report

    def _note(self, plan: Plan, report: Report) -> None:
        own_ids, ids = self._own[plan.key].token_ids, _ids(report)
        row = self._row(plan, report)
        at = next((at for at, pair in enumerate(zip(ids, own_ids, strict=False)) if pair[0] != pair[1]), None)
        if at is None and len(ids) != len(own_ids):
            at = min(len(ids), len(own_ids))
        gap = None if at is None else self._gap(plan.key, own_ids[:at])
        row = msgspec.structs.replace(row, differs_at=at, gap=gap)
        self._file.add(row)
        word = "equal" if at is None else f"DIFFERS at {at}"
        self._say(f"{plan.key}, {plan.way}, {plan.trouble}: {word}, {row.tokens} tokens in {row.seconds:.1f} s")

    def _gap(self, key: TextKey, path: tuple[int, ...]) -> float:
        """Between the target's two best behind a beginning of a text."""
        if self._target is None:
            settings = EngineSettings(num_threads=1, max_length=MAX_LENGTH)
            self._target = load_engine(self._pair.target, "target", settings)
        slot, row = self._target.open(self._pair.prompt(key))
        if path:
            row = self._target.extend([Extension.chain(slot, path)])[0][-1]
        self._target.close(slot)
        (guesses,) = best_guesses(row[None, :], key.sampling(()), [len(path)], 2)
        return (guesses.scores[0] - guesses.scores[1]) * (key.temperature or 1.0)

    def _row(self, plan: Plan, report: Report) -> ExactRow:
        record = report.disclosure
        return ExactRow(
            *plan.key,
            way=plan.way,
            trouble=plan.trouble,
            tokens=len(report.tokens),
            seconds=round(report.total_s, 3),
            first_token_s=round(report.first_token_s, 3),
            rounds=report.rounds,
            positions=report.num_positions,
            reconnects=report.reconnects,
            up=sum(count for what, count in record.up.items() if what != "prompt"),
            down=sum(record.down.values()),
            is_cloud_text=report.is_cloud_text,
            num_near_ties=report.num_near_ties,
            processor=self._processor,
        )


def exact_claims(rows: Iterable[ExactRow]) -> Iterator[Claim]:
    """exact_share: of all texts that both wrote; by trouble; and what a token took, where no trouble came."""
    hybrid = [row for row in rows if row.way != CLOUD]
    if not hybrid:
        return
    yield _share("exact_share", hybrid)
    for trouble in dict.fromkeys(TROUBLES):
        if some := [row for row in hybrid if row.trouble == trouble]:
            yield _share(f"exact_share_{trouble}", some)
    for way in WAYS:
        if some := [row for row in hybrid if row.way == way and row.trouble == NONE]:
            yield from _costs(way.replace(":", "_"), some)


def _costs(name: str, rows: Sequence[ExactRow]) -> Iterator[Claim]:
    count, num_tokens = len(rows), sum(row.tokens for row in rows)
    if num_rounds := sum(row.rounds for row in rows):  # none where the cloud wrote by itself
        yield Claim(f"tokens_per_round_{name}", num_tokens / num_rounds, "tokens", count)
    yield Claim(f"positions_per_token_{name}", sum(row.positions for row in rows) / num_tokens, "positions", count)
    yield Claim(f"up_per_token_{name}", sum(row.up for row in rows) / num_tokens, "bytes", count)
    yield Claim(f"down_per_token_{name}", sum(row.down for row in rows) / num_tokens, "bytes", count)


def _share(name: str, rows: Sequence[ExactRow]) -> Claim:
    return Claim(name, sum(row.differs_at is None for row in rows) / len(rows), "of texts", len(rows))


def _groups(missing: Sequence[Plan]) -> Iterator[list[Plan]]:
    """Texts that are written at once: one, or a crowd."""
    crowd: list[Plan] = []
    for plan in missing:
        if plan.trouble != CROWD:
            yield [plan]
            continue
        crowd.append(plan)
        if len(crowd) == CROWD_SIZE:
            yield crowd
            crowd = []
    if crowd:
        yield crowd


def processor_name() -> str:
    """With a digest of its features, by which kernels are chosen: clouds rent out several kinds under one name."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    features = hashlib.blake2b(facts.get("flags", "").encode(), digest_size=4).hexdigest()
    return f"{facts.get('model name') or platform.processor()}, {features}"


def _after(num_tokens: int, befall: Callable[[], None]) -> OnText:
    """Something happens once, when the text has so many tokens."""
    left = num_tokens

    def count(pieces: Sequence[TextPiece]) -> None:
        nonlocal left
        if left > 0 and (left := left - len(tokens_of(pieces))) <= 0:
            befall()

    return count


def _ids(report: Report) -> list[int]:
    return [token.token_id for token in report.tokens]
