"""Pictures of the results, as PNG and SVG: one font size, every line labelled where it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.network.claims import AIMS
from bench.network.grid import COST, LOCATED, OFFERS, ORACLE
from bench.network.limits import model_tokens_per_s
from bench.network.rows import AUTO, CLOUD, EDGE, NAIVE, Cell, Row
from bench.network.tables import BEST_FIXED, Results

FONT_SIZE = 10
STYLE: dict[Any, Any] = {
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlelocation": "left",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "savefig.dpi": 160,
    "svg.fonttype": "none",
}


class Look(NamedTuple):
    """How a mode is drawn."""

    label: str
    color: str
    width: float = 1.4
    dash: str = "-"


LOOKS = {
    AUTO: Look("skydraft", "#c2185b", 2.6),
    CLOUD: Look("cloud alone", "#222222", 1.8),
    EDGE: Look("device alone", "#9e9e9e"),
    BEST_FIXED: Look("stop and wait, best", "#1f77b4"),
    "pipelined:4": Look("pipelined, 4", "#17a2a2"),
    "prepared:4": Look("prepared, 4", "#7b5cc4"),
    "tree": Look("tree", "#2e8b57"),
    "free": Look("free", "#e07b9f"),
    NAIVE: Look("naive JSON", "#c77d1e"),
    LOCATED: Look("draft beside target", "#8a8a8a", 1.2, "-."),
    ORACLE + AUTO: Look("oracle", "#8a8a8a", 1.2, "--"),
    COST: Look("objective cost", "#c2185b"),
}
COST_AIM = AIMS["cost_waste_pa_50"].most or 0.0
MODEL = Look("model", "#c2185b", 1.2, ":")

SPEED_MODES = (AUTO, CLOUD, BEST_FIXED, "pipelined:4", "prepared:4", "tree", NAIVE)
FIRST_MODES = (AUTO, CLOUD, BEST_FIXED, "tree", NAIVE)
BAR_MODES = (AUTO, "free", "tree", "prepared:4", "pipelined:4", "wait:4", NAIVE, CLOUD)

Measure = Callable[[Row], float]


class Line(NamedTuple):
    look: Look
    x: list[float]
    y: list[float]


def draw_all(measured: Results, limits: Results, folder: Path) -> Iterator[Path]:
    """Draw what there is.

    Args:
        measured: of real runs; where there are none, what was simulated is drawn, and says so.
        limits: in virtual time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source, kind = (measured, "paced") if measured.cells else (limits, "paced, virtual time")
    with mpl.rc_context():
        mpl.rcParams.update(STYLE)
        for name, figure in _figures(source, limits, kind):
            for ending in ("png", "svg"):
                path = folder / f"{name}.{ending}"
                figure.savefig(path, bbox_inches="tight")
                yield path
            plt.close(figure)


def _figures(source: Results, limits: Results, kind: str) -> Iterator[tuple[str, Figure]]:
    if any(cell.profile != "P-C" for cell in source.cells):
        speed: Measure = lambda row: row.flow  # noqa: E731
        yield "speed", _curves(source, limits, SPEED_MODES, speed, f"tokens per second behind the first ({kind})")
        first: Measure = lambda row: row.first_token_s  # noqa: E731
        yield "first_token", _curves(source, None, FIRST_MODES, first, f"seconds to the first token ({kind})")
    at_50 = [cell for cell in source.cells if _is_usual(cell) and (cell.profile, cell.round_trip_ms) == ("P-A", 50)]
    if at_50:
        yield "bytes", _bars(source, at_50, f"payload bytes a token, prompt not counted ({kind})", _BYTES)
        yield "work", _bars(source, at_50, f"positions that the cloud computed, a token ({kind})", _WORK)
    robot = [cell for cell in source.cells if _is_usual(cell) and cell.profile == "P-C"]
    if robot:
        yield "robot", _bars(source, robot, f"tokens per second behind the first ({kind})", _SPEED)
    frontier = [cell for cell in limits.cells if _is_usual(cell) and limits.runs(cell, OFFERS[0])]
    if frontier:
        yield "frontier", _frontier(limits, frontier)


def _is_usual(cell: Cell) -> bool:
    return cell.draft == "q4" and cell.rate_mbps == 10


# Against the round trip


def _curves(source: Results, limits: Results | None, modes: Sequence[str], measure: Measure, title: str) -> Figure:
    """A panel for each profile and temperature."""
    cells = [cell for cell in source.cells if _is_usual(cell) and cell.profile != "P-C"]
    profiles = sorted({cell.profile for cell in cells})
    warmths = sorted({cell.temperature for cell in cells})
    size = (5.6 * len(profiles), 3.6 * len(warmths))
    figure, grid = plt.subplots(len(warmths), len(profiles), figsize=size, squeeze=False, layout="constrained")
    for row, temperature in enumerate(warmths):
        for column, profile in enumerate(profiles):
            of_panel = [cell for cell in cells if (cell.profile, cell.temperature) == (profile, temperature)]
            lines = [_line(source, of_panel, mode, measure) for mode in modes]
            if limits is not None:
                lines += _limit_lines(limits, of_panel, measure)
            axes = grid[row][column]
            _draw_lines(axes, [line for line in lines if line.x])
            axes.set_title(f"{profile}, {_warmth(temperature)}")
            if row == len(warmths) - 1:
                axes.set_xlabel("round trip, ms")
    figure.suptitle(title, x=0.01, ha="left", fontsize=FONT_SIZE)
    return figure


def _line(source: Results, cells: Sequence[Cell], mode: str, measure: Measure) -> Line:
    points = [(cell.round_trip_ms, source.median(cell, mode, measure)) for cell in cells]
    known = [(x, y) for x, y in points if y is not None]
    return Line(LOOKS[mode], [x for x, _ in known], [y for _, y in known])


def _limit_lines(limits: Results, cells: Sequence[Cell], measure: Measure) -> list[Line]:
    """What bounds the modes, and what the closed-form model expects."""
    lines = [_line(limits, cells, mode, measure) for mode in (ORACLE + AUTO, LOCATED)]
    expected = [(cell.round_trip_ms, model_tokens_per_s(limits, cell)) for cell in cells]
    known = [(x, y) for x, y in expected if y is not None]
    return [*lines, Line(MODEL, [x for x, _ in known], [y for _, y in known])]


def _draw_lines(axes: Axes, lines: Sequence[Line]) -> None:
    for line in lines:
        axes.plot(line.x, line.y, line.look.dash, color=line.look.color, linewidth=line.look.width)
    most = max(max(line.y) for line in lines)
    axes.set_ylim(0, 1.05 * most)
    end = max(max(line.x) for line in lines)
    axes.set_xlim(0, end)
    axes.set_xticks(sorted({x for line in lines for x in line.x if x in (0, 50, 100, 200, 300)}))
    ends = [line.y[-1] for line in lines]
    for line, at, y in zip(lines, ends, spread(ends, 0.066 * most), strict=True):
        axes.plot([end, 1.03 * end], [at, y], color=line.look.color, linewidth=0.6, clip_on=False)
        axes.text(1.04 * end, y, line.look.label, color=line.look.color, va="center")


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Places for labels near these values, in their order and at least a gap apart."""
    order = sorted(range(len(values)), key=values.__getitem__)
    places = [values[index] for index in order]
    for _ in range(200):  # neighbours push each other apart until all have room
        for low in range(len(places) - 1):
            lack = gap - (places[low + 1] - places[low])
            if lack > 0:
                places[low] -= lack / 2
                places[low + 1] += lack / 2
        shift = max(0.0, gap / 2 - places[0]) if places else 0.0
        places = [place + shift for place in places]
    result = [0.0] * len(values)
    for index, place in zip(order, places, strict=True):
        result[index] = place
    return result


# By mode

Parts = Sequence[tuple[str, Measure]]  # what is written behind a bar's number, and the number

_BYTES: Parts = (("up", lambda row: row.up_bytes / row.tokens), ("down", lambda row: row.down_bytes / row.tokens))
_WORK: Parts = (("", lambda row: row.positions / row.tokens),)
_SPEED: Parts = (("", lambda row: row.flow),)


def _bars(source: Results, cells: Sequence[Cell], title: str, parts: Parts) -> Figure:
    """A panel for each cell, a row for each mode and in it a bar for each part."""
    size = (5.6 * len(cells), 0.5 + 0.42 * len(BAR_MODES))
    figure, grid = plt.subplots(1, len(cells), figsize=size, squeeze=False, layout="constrained", sharex=True)
    for axes, cell in zip(grid[0], cells, strict=True):
        modes = [mode for mode in BAR_MODES if source.runs(cell, mode)][::-1]
        for place, mode in enumerate(modes):
            _draw_bars(axes, source, cell, mode, place, parts)
        axes.set_yticks(range(len(modes)), [_look(mode).label for mode in modes])
        axes.tick_params(length=0)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.set_title(f"{cell.profile}, {_warmth(cell.temperature)}, {cell.round_trip_ms:g} ms")
    figure.suptitle(title, x=0.01, ha="left", fontsize=FONT_SIZE)
    return figure


def _draw_bars(axes: Axes, source: Results, cell: Cell, mode: str, place: int, parts: Parts) -> None:
    height = 0.72 / len(parts)
    for index, (name, measure) in enumerate(parts):
        value = source.median(cell, mode, measure) or 0.0
        y = place + (len(parts) - 1) * height / 2 - index * height
        axes.barh(y, value, 0.9 * height, color=_look(mode).color, alpha=1 - 0.45 * index)
        axes.annotate(f" {value:.1f} {name}", (value, y), va="center")


def _look(mode: str) -> Look:
    return LOOKS.get(mode) or Look(mode.replace("wait:", "stop and wait, "), LOOKS[BEST_FIXED].color)


# Cost against speed


def _frontier(limits: Results, cells: Sequence[Cell]) -> Figure:
    """Positions computed beyond those that wrote a token against speed, as the least probable offered guess varies."""
    at = [cell for cell in cells if cell.profile == "P-A"] or list(cells)[:2]
    figure, grid = plt.subplots(1, len(at), figsize=(5.6 * len(at), 4.2), squeeze=False, layout="constrained")
    for axes, cell in zip(grid[0], at, strict=True):
        points = [(offer.removeprefix("offer:"), _point(limits, cell, offer)) for offer in OFFERS]
        axes.plot([x for _, (x, _) in points], [y for _, (_, y) in points], "o-", color="#8a8a8a", markersize=3)
        for name, point in points:
            axes.annotate(name, point, (0, -6), textcoords="offset points", color="#8a8a8a", va="top", ha="center")
        for mode in (AUTO, COST, CLOUD, "wait:4", "prepared:4"):
            if limits.runs(cell, mode):
                point = _point(limits, cell, mode)
                axes.plot(*point, "o", color=_look(mode).color)
                axes.annotate(_look(mode).label, point, (6, 4), textcoords="offset points", color=_look(mode).color)
        axes.axvline(COST_AIM, color="#bbbbbb", linewidth=0.8)
        axes.text(COST_AIM, 1, " aim of objective cost", color="#8a8a8a")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=-0.05)
        axes.set_title(f"{cell.profile}, {_warmth(cell.temperature)}, {cell.round_trip_ms:g} ms")
        axes.set_xlabel("positions computed in vain, a token")
    title = "tokens per second, by the least probable guess that is offered (paced, virtual time)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=FONT_SIZE)
    return figure


def _point(limits: Results, cell: Cell, mode: str) -> tuple[float, float]:
    waste = limits.median(cell, mode, lambda row: max(0.0, row.positions / row.tokens - 1))
    speed = limits.median(cell, mode, lambda row: row.flow)
    return waste or 0.0, speed or 0.0


def _warmth(temperature: float) -> str:
    return "greedy" if temperature == 0 else f"temperature {temperature:g}"
