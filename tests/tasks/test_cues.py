from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.tasks.cues import COLUMNS, CUE_FORMATS, Cue, clock, format_cues

CUES = (
    Cue(0.0, 7.31, "A woman sounds calm.", emotion="calm"),
    Cue(7.31, 12.0, "No speech.", has_speech=False),
    Cue(3725.0004, 3731.9996, "A man sounds angry.", emotion="angry", is_sure=True, confidence=0.714),
)


def test_plain_lines_have_times_to_the_second() -> None:
    assert format_cues(CUES, "a.wav", "text").splitlines() == [
        "[00:00 - 00:07] A woman sounds calm.",
        "[00:07 - 00:12] No speech.",
        "[1:02:05 - 1:02:12] A man sounds angry.",
    ]


def test_subrip_has_numbers_and_commas() -> None:
    assert format_cues(CUES[::2], "a.wav", "srt") == (
        "1\n00:00:00,000 --> 00:00:07,310\nA woman sounds calm.\n\n"
        "2\n01:02:05,000 --> 01:02:12,000\nA man sounds angry.\n\n"
    )


def test_webvtt_has_its_header_and_points() -> None:
    assert format_cues(CUES[::2], "a.wav", "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:07.310\nA woman sounds calm.\n\n"
        "01:02:05.000 --> 01:02:12.000\nA man sounds angry.\n\n"
    )


def test_tables_have_a_row_for_each_cue_under_their_columns() -> None:
    rows = [
        list(COLUMNS),
        ["a.wav", "0.000", "7.310", "true", "calm", "", "", "A woman sounds calm."],
        ["a.wav", "7.310", "12.000", "false", "", "", "", "No speech."],
        ["a.wav", "3725.000", "3732.000", "true", "angry", "0.71", "true", "A man sounds angry."],
    ]
    assert list(csv.reader(io.StringIO(format_cues(CUES, "a.wav", "csv")))) == rows
    assert [line.split("\t") for line in format_cues(CUES, "a.wav", "tsv").splitlines()] == rows


@pytest.mark.parametrize(
    ("time_s", "shown"),
    [(0, "00:00"), (59.4, "00:59"), (59.5, "01:00"), (3599.6, "1:00:00"), (360_000, "100:00:00")],
)
def test_a_clock_rounds_to_seconds(time_s: float, shown: str) -> None:
    assert clock(time_s) == shown


HOSTILE = st.lists(st.sampled_from([*"ab,\"'\t\r\n\u2028<>&-1:", "-->"]), max_size=30).map("".join)
STAMPS = re.compile(r"^\d\d:\d\d:\d\d[.,]\d{3} --> \d\d:\d\d:\d\d[.,]\d{3}$", re.MULTILINE)


@given(st.lists(HOSTILE, min_size=1, max_size=4), HOSTILE)
def test_no_text_and_no_name_breaks_the_form(texts: list[str], name: str) -> None:
    cues = [Cue(float(n), n + 0.5, f"x{text}") for n, text in enumerate(texts)]
    for to in ("srt", "vtt"):
        body = format_cues(cues, name, to).removeprefix(CUE_FORMATS[to].header)
        assert len(STAMPS.findall(body)) == body.count("-->") == len(texts)
        assert len(body.removesuffix("\n\n").split("\n\n")) == len(texts)
    table = io.StringIO(format_cues(cues, name, "csv"), newline="")
    assert [(row[0], row[-1]) for row in csv.reader(table)][1:] == [(name, f"x{text}") for text in texts]
    lines = format_cues(cues, name, "tsv").removesuffix("\n").split("\n")
    assert [line.count("\t") for line in lines] == [len(COLUMNS) - 1] * (len(texts) + 1)
