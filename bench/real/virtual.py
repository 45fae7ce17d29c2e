"""The real pair in virtual time: recorded texts and guesses, exact pace, both halves of a session, no models needed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from bench.claims import Claim
from bench.network.grid import LOCATED, planner_of
from bench.network.profiles import PROFILES, Profile
from bench.network.rows import AUTO, CLOUD
from bench.network.virtual import VirtualLink, VirtualText
from bench.real.pair import KINDS, TEMPERATURES
from bench.real.recording import Recording

RATE_MBPS = 10
ROUND_TRIPS_MS = (0.0, 20.0, 50.0, 100.0, 200.0)
PHONES = {
    profile.name: profile
    for profile in (
        Profile("phone-7B", "a phone's 0.5B, a served 7B", 15, 12),
        Profile("phone-70B", "a phone's 0.5B, a served 70B", 15, 35),
    )
}
PACES = {**PROFILES, **PHONES}
FIXED = ("wait:4", "wait:8", "pipelined:4", "prepared:4", "tree", "free")
MODES = (CLOUD, LOCATED, *FIXED, AUTO)
CLAIMED = {"pa": "P-A", "pb": "P-B"}
CLAIMED_KINDS = ("code", "chat")
CLAIMED_MS = 50.0


class Case(NamedTuple):
    """What all ways of a comparison share."""

    profile: str
    round_trip_ms: float
    kind: str
    temperature: float


class VirtualRow(msgspec.Struct, frozen=True):
    """All texts of a case in one way, one after the other: what the device learnt in one serves the next.

    tokens_per_s: behind the first arrival of each text. over_cloud: that over the cloud's alone.
    first_token_s: median. positions_per_token: that the cloud computed. up_per_token, down_per_token: payload bytes,
        the prompt left out. unrecorded: of the guesses that were asked for, the share that others stood in for.
    """

    profile: str
    round_trip_ms: float
    kind: str
    temperature: float
    mode: str
    texts: int
    tokens_per_s: float
    over_cloud: float
    first_token_s: float
    positions_per_token: float
    up_per_token: float
    down_per_token: float
    unrecorded: float

    @property
    def case(self) -> Case:
        return Case(self.profile, self.round_trip_ms, self.kind, self.temperature)


def cases(profiles: Iterable[str], round_trips_ms: Sequence[float], kinds: Sequence[str] = KINDS) -> Iterator[Case]:
    """A profile with a link of its own is taken with that."""
    for name in profiles:
        own_ms = PACES[name].round_trip_ms
        for round_trip_ms in round_trips_ms if own_ms is None else (own_ms,):
            for kind in kinds:
                for temperature in TEMPERATURES:
                    yield Case(name, round_trip_ms, kind, temperature)


def simulate(recording: Recording, case: Case, modes: Sequence[str] = MODES) -> list[VirtualRow]:
    """Write a case's texts in every way; the cloud alone is the first."""
    rows: list[VirtualRow] = []
    alone = _Sums()
    for mode in modes:
        sums = _write_all(recording, case, mode)
        alone = sums if mode == CLOUD else alone
        rows.append(sums.row(case, mode, alone))
    return rows


def virtual_claims(rows: Iterable[VirtualRow]) -> Iterator[Claim]:
    """Speed of `auto` over the cloud alone, the lesser of the temperatures; what was not simulated is left out."""
    speeds: dict[tuple[str, float, str], list[VirtualRow]] = {}
    for row in rows:
        if row.mode == AUTO:
            speeds.setdefault((row.profile, row.round_trip_ms, row.kind), []).append(row)
    for short, profile in CLAIMED.items():
        for kind in CLAIMED_KINDS:
            if found := speeds.get((profile, CLAIMED_MS, kind)):
                least = min(found, key=lambda row: row.over_cloud)
                yield Claim(f"virtual_{short}_{CLAIMED_MS:g}_{kind}", least.over_cloud, "x cloud", least.texts)


@dataclass
class _Sums:
    """Of the texts of a case in one way."""

    first_tokens_s: list[float] = field(default_factory=list)
    num_tokens: int = 0
    num_later: int = 0  # tokens behind the first arrivals
    later_s: float = 0.0
    num_positions: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    num_asked: int = 0
    num_unrecorded: int = 0

    @property
    def tokens_per_s(self) -> float:
        return self.num_later / self.later_s

    def row(self, case: Case, mode: str, alone: _Sums) -> VirtualRow:
        return VirtualRow(
            *case,
            mode=mode,
            texts=len(self.first_tokens_s),
            tokens_per_s=round(self.tokens_per_s, 2),
            over_cloud=round(self.tokens_per_s / alone.tokens_per_s, 3),
            first_token_s=round(statistics.median(self.first_tokens_s), 4),
            positions_per_token=round(self.num_positions / self.num_tokens, 2),
            up_per_token=round(self.up_bytes / self.num_tokens, 1),
            down_per_token=round(self.down_bytes / self.num_tokens, 1),
            unrecorded=round(self.num_unrecorded / max(1, self.num_asked), 3),
        )


def _write_all(recording: Recording, case: Case, mode: str) -> _Sums:
    round_trip_s = case.round_trip_ms / 1000
    link = VirtualLink(0.0 if mode == LOCATED else round_trip_s, RATE_MBPS)
    # Its first token comes a connection and a request later, and so do all others: the stream needs no answers.
    away_s = 3 * round_trip_s if mode == LOCATED else 0.0
    planner, sums = planner_of(mode), _Sums()
    for text in recording.texts:
        if (text.key.kind, text.key.temperature) != (case.kind, case.temperature):
            continue
        minds = recording.minds(text)
        written = VirtualText(minds, PACES[case.profile].sides, link, planner, mode != CLOUD).run()
        assert written.token_ids == text.token_ids, "a way wrote another text than the target"
        sums.first_tokens_s.append(written.times_s[0] + away_s)
        sums.num_tokens += len(written.token_ids)
        sums.num_later += len(written.token_ids) - written.counts[0]
        sums.later_s += written.times_s[-1] - written.times_s[0]
        sums.num_positions += written.num_positions
        sums.up_bytes += sum(count for what, count in written.record.up.items() if what != "prompt")
        sums.down_bytes += sum(written.record.down.values())
        sums.num_asked += minds.num_asked
        sums.num_unrecorded += minds.num_unrecorded
    return sums
