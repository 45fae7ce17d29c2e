"""docs/commands.md against the code."""

import re
from pathlib import Path

from skydraft.cli import exit_status
from skydraft.cli.results import as_json, result_of_clip
from skydraft.edge.captioned_window import CaptionedWindow
from tests.cli.made_up import report

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()


def first_cells(title: str) -> list[str]:
    """Of the table in a section, without its head."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| (.*?) \|", section, re.MULTILINE)[1:]


def test_the_page_has_every_exit_status() -> None:
    known = {value for name, value in vars(exit_status).items() if name.isupper() and isinstance(value, int)}
    assert [int(cell) for cell in first_cells("Exit status")] == sorted({0} | known)


def test_the_page_has_every_field_of_a_result() -> None:
    told = {name for cell in first_cells("JSON") for name in re.findall(r"`(\w+)`", cell)}
    windows = [CaptionedWindow(0.0, 8.0, report()), CaptionedWindow(8.0, 16.0, report())]
    assert told == set(as_json({"file": "a.wav"}, result_of_clip(windows))) | {"prompt", "error"}
