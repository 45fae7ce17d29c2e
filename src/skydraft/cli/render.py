"""Results made visible: colours, the table, sentences about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from skydraft.cli.results import Piece, Result
from skydraft.cli.words import counted, harmless, seconds
from skydraft.core import Origin

# Of medium lightness: contrast 3.8 or more on black and on white. A correction stands out without colours too.
STYLES = {
    Origin.EDGE: "color(28)",
    Origin.ACCEPTED: "color(31)",
    Origin.CORRECTED: "bold underline color(166)",
    Origin.CLOUD: "color(133)",
}
MEANINGS = {
    Origin.EDGE: "device alone",
    Origin.ACCEPTED: "drafted, accepted",
    Origin.CORRECTED: "corrected",
    Origin.CLOUD: "cloud's own",
}
UP_KINDS = ("prompt", "features", "drafts", "control")
DOWN_KINDS = ("verdicts", "tokens", "control")
NONE = "·"


class Column(NamedTuple):
    """A run in the table. title: one line or two."""

    title: str
    result: Result


def coloured(pieces: Iterable[Piece]) -> Text:
    """The text, each piece in its origin's colour."""
    text = Text(overflow="fold")
    for piece in pieces:
        text.append(harmless(piece.text), STYLES[piece.origin])
    return text


def legend() -> Text:
    """What the colours mean."""
    return Text("   ").join(Text(f"■ {MEANINGS[origin]}", style) for origin, style in STYLES.items())


def summary(result: Result) -> str:
    """One line on what a run did."""
    counts = result.num_by_origin
    origins = ", ".join(f"{counts[origin]:,} {MEANINGS[origin]}" for origin in Origin if counts[origin])
    parts = [
        f"{counted(len(result.pieces), 'token')} ({origins})",
        f"first after {seconds(result.first_token_s)}, all in {seconds(result.total_s)}",
    ]
    if result.up:
        bytes_moved = f"{result.up.total():,} bytes up, {result.down.total():,} down"
        parts.append(f"{counted(result.rounds, 'round')}, {bytes_moved}")
    if result.reconnects:
        parts.append(counted(result.reconnects, "reconnect"))
    return "; ".join(parts)


def disclosure(result: Result) -> str:
    """What left the device, in a sentence or two."""
    if not result.up:
        return "Nothing left the device."
    num_bytes = f"{result.up.total():,} bytes in all"
    if result.has_shared_evidence:
        evidence = "; ".join(kind.removeprefix("evidence").strip(": ") for kind in _evidence_kinds(result))
        return f"Left the device: {evidence}, from which speech can be made audible again ({num_bytes})."
    num_drafts = sum(count for kind, count in result.contents.items() if kind.startswith("drafts"))
    sent = "the instruction" + (f" and the words of {counted(num_drafts, 'draft')}" if num_drafts else "")
    return f"Left the device: {sent} ({num_bytes}). The sound and everything computed from it stayed."


def comparison(columns: Sequence[Column]) -> Table:
    """Runs side by side, in numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 2), expand=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    results = [column.result for column in columns]

    def add(label: str, show: Callable[[Result], str], style: str = "") -> None:
        table.add_row(Text(label, style=style), *(_cell(show(result)) for result in results))

    add("time to first token", lambda result: seconds(result.first_token_s))
    add("total time", lambda result: seconds(result.total_s))
    add("tokens", lambda result: f"{len(result.pieces):,}")
    for origin in Origin:
        add(f"  {MEANINGS[origin]}", lambda result, origin=origin: _number(result.num_by_origin[origin]), STYLES[origin])
    add("rounds", lambda result: _number(result.rounds))
    add("bytes up", lambda result: _number(result.up.total()))
    for kind in _kinds([result.up for result in results], UP_KINDS):
        add(f"  {kind}", lambda result, kind=kind: _number(result.up[kind]), "dim")
    add("bytes down", lambda result: _number(result.down.total()))
    for kind in _kinds([result.down for result in results], DOWN_KINDS):
        add(f"  {kind}", lambda result, kind=kind: _number(result.down[kind]), "dim")
    return table


def _kinds(counts: Iterable[Counter[str]], order: Sequence[str]) -> list[str]:
    """The kinds that occur, known ones first."""
    found = sum(counts, Counter())
    return [kind for kind in order if found[kind]] + sorted(set(found) - set(order))


def _evidence_kinds(result: Result) -> list[str]:
    return [kind for kind in result.contents if kind.startswith("evidence")]


def _number(number: int) -> str:
    return f"{number:,}" if number else NONE


def _cell(text: str) -> Text:
    return Text(text, style="dim" if text == NONE else "")
