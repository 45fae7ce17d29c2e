"""What is measured and what was: cells of the grid, one row for each text, and the file of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from skydraft.engines.emulated.paced import PaceCounts
from skydraft.errors import ConfigError

CLOUD, EDGE, NAIVE, AUTO = "cloud", "edge", "naive", "auto"


class Cell(msgspec.Struct, frozen=True):
    """What all modes of a comparison share.

    profile, draft: of `profiles`. round_trip_ms, rate_mbps: of the link.
    """

    profile: str
    draft: str
    temperature: float
    round_trip_ms: float
    rate_mbps: float

    def __str__(self) -> str:
        warmth = "greedy" if self.temperature == 0 else f"temperature {self.temperature:g}"
        return f"{self.profile} {self.draft} {warmth}, {self.round_trip_ms:g} ms, {self.rate_mbps:g} Mbit/s"


class Lateness(msgspec.Struct, frozen=True):
    """How well an emulated model kept its pace in one text.

    num_passes: forward passes. overruns: of these, how many computed longer than their pace.
    late_s: by how much passes ended after their time, all together.
    """

    num_passes: int = 0
    overruns: int = 0
    late_s: float = 0.0

    @classmethod
    def of(cls, counts: PaceCounts) -> Lateness:
        return cls(counts.num_passes, counts.overruns, counts.total_late_s)

    def since(self, before: Lateness) -> Lateness:
        """What was added since then."""
        return Lateness(
            self.num_passes - before.num_passes, self.overruns - before.overruns, self.late_s - before.late_s
        )


class Wire(msgspec.Struct, frozen=True):
    """Bytes of IP packets, headers and bare acknowledgements included; both ends of the connection included.

    steady_up, steady_down: of these, between the first token's arrival and the last one's.
    """

    up: int
    down: int
    steady_up: int
    steady_down: int


class Row(msgspec.Struct, frozen=True):
    """One text.

    run: with each run another prompt (its index) and seed; the same for all modes.
    seconds, first_token_s: from the start, without a connection, to the last token and to the first.
    num_first: tokens that came with the first.
    rounds: verdicts. positions: that the cloud computed. up, down: payload bytes by kind.
    digest: of the token ids. attempts: how often it was measured until it kept the pace.
    kind: "paced" for real sockets and processes with paced models, "virtual" for virtual time.
    policy_us: that deciding took, median of all answers. run_length: what the device learnt (`policies.throughput`).
    """

    cell: Cell
    mode: str
    run: int
    prompt: int
    seed: int
    tokens: int
    seconds: float
    first_token_s: float
    num_first: int
    rounds: int
    positions: int
    up: dict[str, int]
    down: dict[str, int]
    digest: str
    device: Lateness = Lateness()
    cloud: Lateness = Lateness()
    wire: Wire | None = None
    attempts: int = 1
    kind: str = "paced"
    policy_us: float | None = None
    run_length: float | None = None

    @property
    def whole(self) -> float:
        """Tokens per second of the whole text, from nothing: connection, prompt and first token included."""
        return self.tokens / self.seconds

    @property
    def flow(self) -> float:
        """The headline: tokens per second behind those that came first; infinite where all came at once."""
        rest_s = self.seconds - self.first_token_s
        return (self.tokens - self.num_first) / rest_s if rest_s else math.inf

    @property
    def late_share(self) -> float:
        """Of the time, by which the passes of the worse of both models were late."""
        return max(self.device.late_s, self.cloud.late_s) / self.seconds

    @property
    def up_bytes(self) -> int:
        """Payload after the prompt."""
        return sum(count for kind, count in self.up.items() if kind != "prompt")

    @property
    def down_bytes(self) -> int:
        return sum(self.down.values())

    @property
    def key(self) -> Key:
        return Key(self.cell, self.mode, self.run, self.tokens)


class Key(NamedTuple):
    """What is measured once."""

    cell: Cell
    mode: str
    run: int
    tokens: int


class TextKey(NamedTuple):
    """What decides the text that the target writes."""

    temperature: float
    prompt: int
    seed: int
    tokens: int


class TextsDiffer(Exception):
    """Two modes wrote different texts: what must not be."""


class Texts:
    """Holds every row against the others: under `exact` all modes write the same token ids."""

    def __init__(self) -> None:
        self._first: dict[TextKey, Row] = {}

    def check(self, row: Row) -> None:
        """Raises: TextsDiffer."""
        if row.mode == EDGE:  # the draft's own text
            return
        key = TextKey(row.cell.temperature, row.prompt, row.seed, row.tokens)
        first = self._first.setdefault(key, row)
        if first.digest != row.digest:
            raise TextsDiffer(
                f"prompt {row.prompt} with seed {row.seed} at temperature {row.cell.temperature:g} gave text "
                f"{row.digest} in mode {row.mode} ({row.cell}) and {first.digest} in mode {first.mode} ({first.cell}): "
                "exact decoding is broken"
            )


def load_rows(path: Path) -> list[Row]:
    """Rows of a file of JSON lines; none where there is no file.

    Raises:
        ConfigError: a line is no row; a last line without an end, of a run that was killed, is passed over.
    """
    if not path.is_file():
        return []
    return list(_decoded(path, path.read_bytes().splitlines(keepends=True)))


def _decoded(path: Path, lines: Iterable[bytes]) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(Row)
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            continue
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"line {number} of {path} is no row of this bench ({error}): name another --out"
            ) from None


def append_row(path: Path, row: Row) -> None:
    with path.open("ab") as file:
        file.write(msgspec.json.encode(row) + b"\n")


def prepare_file(path: Path) -> None:
    """Make the folder; cut off a last line without an end, of a run that was killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and not (data := path.read_bytes()).endswith(b"\n"):
        path.write_bytes(data[: data.rfind(b"\n") + 1])
