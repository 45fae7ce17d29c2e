from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.network.rows import Texts, TextsDiffer, append_row, load_rows, prepare_file
from skydraft.errors import ConfigError
from tests.bench.network_rows import PA_50, row


def test_rows_come_back_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    prepare_file(path)
    written = [row("auto"), row("cloud", run=1)]
    for each in written:
        append_row(path, each)
    assert load_rows(path) == written


def test_a_line_of_a_run_that_was_killed_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, row("auto"))
    path.write_bytes(path.read_bytes() + b'{"cell":{"pro')
    assert load_rows(path) == [row("auto")]
    prepare_file(path)
    append_row(path, row("cloud"))
    assert load_rows(path) == [row("auto"), row("cloud")]


def test_a_file_of_something_else_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, row("auto"))
    path.write_bytes(path.read_bytes() + b'{"claim": 1}\n')
    with pytest.raises(ConfigError, match="line 2 of .* is no row"):
        load_rows(path)


def test_two_modes_with_different_texts_are_a_failure_that_names_both() -> None:
    texts = Texts()
    texts.check(row("cloud"))
    texts.check(row("tree", cell=replace(PA_50, profile="P-B")))
    with pytest.raises(TextsDiffer, match="mode auto .* mode cloud"):
        texts.check(row("auto", digest="other"))


def test_texts_of_other_seeds_temperatures_and_the_draft_alone_may_differ() -> None:
    texts = Texts()
    texts.check(row("cloud"))
    texts.check(row("cloud", run=1, digest="another prompt"))
    texts.check(row("cloud", cell=replace(PA_50, temperature=0.8), digest="warmer"))
    texts.check(row("edge", digest="the draft's own"))


def test_speeds_are_of_the_whole_text_and_of_what_follows_the_first_token() -> None:
    text = row("auto", seconds=3.2, first_token_s=0.2)
    assert text.whole == pytest.approx(20)
    assert text.flow == pytest.approx(21)
    assert text.up_bytes == 192  # the prompt is not counted
