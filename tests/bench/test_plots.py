from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.network.__main__ import main
from bench.network.grid import OFFERS
from bench.network.plots import draw_all, spread
from bench.network.rows import append_row
from bench.network.tables import Results
from tests.bench.network_rows import PA_50, row

MODES = ("cloud", "auto", "wait:4", "prepared:4", "pipelined:4", "tree", "naive")
CELLS = [PA_50, replace(PA_50, round_trip_ms=100), replace(PA_50, profile="P-C", round_trip_ms=120)]
ROWS = [row(mode, cell=cell, seconds=1.0 + index / 5) for cell in CELLS for index, mode in enumerate(MODES)]
LIMITS = [
    row(mode, cell=cell, kind="virtual", run_length=6.0)
    for cell in CELLS
    for mode in ("cloud", "auto", "oracle auto", "co-located", "cost", *OFFERS)
]


def test_all_pictures_come_as_png_and_svg(tmp_path: Path) -> None:
    paths = list(draw_all(Results(ROWS), Results(LIMITS), tmp_path))
    names = {"speed", "first_token", "bytes", "work", "robot", "frontier"}
    assert {path.name for path in paths} == {f"{name}.{ending}" for name in names for ending in ("png", "svg")}
    assert all(path.stat().st_size > 4000 for path in paths)
    svg = (tmp_path / "speed.svg").read_text()
    assert all(label in svg for label in ("skydraft", "cloud alone", "oracle", "model", "draft beside target"))


def test_without_rows_there_are_no_pictures(tmp_path: Path) -> None:
    assert list(draw_all(Results([]), Results([]), tmp_path)) == []


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [5.0, 0.0, 4.9, 0.1], [3.0], []])
def test_labels_keep_their_order_and_a_gap(values: list[float]) -> None:
    places = spread(values, 1.0)
    order = sorted(range(len(values)), key=values.__getitem__)
    assert all(places[above] - places[below] >= 0.99 for below, above in pairwise(order))


def test_a_report_of_an_earlier_measurement_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text_pair: Path
) -> None:
    for each in ROWS:
        append_row(tmp_path / "rows.jsonl", each)
    for each in LIMITS:
        append_row(tmp_path / "rows_virtual.jsonl", each)
    assert main(["--report", "--out", str(tmp_path / "rows.jsonl")]) == 0
    assert "P-A q4 greedy, 50 ms, 10 Mbit/s" in capsys.readouterr().out
    assert (tmp_path / "rows" / "speed.png").is_file()


def test_without_the_text_pair_it_says_so_and_succeeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.network.__main__.TEXT", tmp_path)
    assert main([]) == 0
    assert "nothing was measured" in capsys.readouterr().out


def test_a_mode_that_is_none_is_refused_before_anything_starts(
    text_pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--modes", "cloud", "fastest", "--out", str(tmp_path / "rows.jsonl")]) == 1
    assert "unknown way to draft 'fastest'" in capsys.readouterr().err
