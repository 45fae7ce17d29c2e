"""Captions with their times as text: plain lines, SubRip, WebVTT, CSV, TSV."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

ARROW = re.compile("-{2,}>")  # what separates the times of a cue, and may not be in its text
QUOTE = '"'
CSV_SPECIAL = frozenset(',"\r\n')


class Cue(NamedTuple):
    """A caption and the part of the recording that it is of.

    start_s, end_s: from the recording's beginning.
    has_speech: False where nobody speaks, whatever the text says of that.
    emotion: that the text names; None: none.
    is_sure: False: the voice is unlike those that the device's model knows; None: nobody has measured what it knows.
    confidence: how often such an emotion is right, 0 to 1; None: nobody can say.
    """

    start_s: float
    end_s: float
    text: str
    has_speech: bool = True
    emotion: str | None = None
    is_sure: bool | None = None
    confidence: float | None = None


class CueFormat(NamedTuple):
    """How cues are written, one after the other, so that they can be written as they come.

    suffix: of a file of them. header: what the file begins with.
    write: a cue's name (of its recording), its number from 1, the cue -> its text with the line breaks behind it.
    is_table: rows name their recording, so those of several recordings are one file.
    """

    suffix: str
    header: str
    write: Callable[[str, int, Cue], str]
    is_table: bool = False


def clock(time_s: float) -> str:
    """`02:05`; from an hour on `1:02:05`."""
    minutes, seconds = divmod(int(time_s + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def time_span(start_s: float, end_s: float) -> str:
    """`[02:05 - 02:11]`"""
    return f"[{clock(start_s)} - {clock(end_s)}]"


def format_cues(cues: Sequence[Cue], name: str, to: str) -> str:
    """All cues of a recording in one text.

    Args:
        name: of the recording; only tables write it.
        to: one of `CUE_FORMATS`.
    """
    form = CUE_FORMATS[to]
    return form.header + "".join(form.write(name, number, cue) for number, cue in enumerate(cues, 1))


def _text(name: str, number: int, cue: Cue) -> str:
    return f"{time_span(cue.start_s, cue.end_s)} {_one_line(cue.text)}\n"


def _srt(name: str, number: int, cue: Cue) -> str:
    start, end = (_stamp(time_s).replace(".", ",") for time_s in (cue.start_s, cue.end_s))
    return f"{number}\n{start} --> {end}\n{ARROW.sub('->', _one_line(cue.text))}\n\n"


def _vtt(name: str, number: int, cue: Cue) -> str:
    """Source: W3C, WebVTT 1, section 4: in a cue's text `&` and `<` are escaped; with `>`, no arrow is left either."""
    text = _one_line(cue.text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{_stamp(cue.start_s)} --> {_stamp(cue.end_s)}\n{text}\n\n"


def _csv(name: str, number: int, cue: Cue) -> str:
    return _csv_line([name, *_fields(cue)])


def _tsv(name: str, number: int, cue: Cue) -> str:
    return "\t".join(_one_line(field) for field in (name, *_fields(cue))) + "\n"


def _fields(cue: Cue) -> tuple[str, ...]:
    times = f"{cue.start_s:.3f}", f"{cue.end_s:.3f}"
    confidence = "" if cue.confidence is None else f"{cue.confidence:.2f}"
    return *times, _flag(cue.has_speech), cue.emotion or "", confidence, _flag(cue.is_sure), cue.text


def _flag(value: bool | None) -> str:
    return "" if value is None else str(value).lower()


def _csv_line(fields: Sequence[str]) -> str:
    """Source: RFC 4180, section 2; but a line feed alone ends a row, which every reader takes."""
    quoted = (f'"{field.replace(QUOTE, QUOTE * 2)}"' if set(field) & CSV_SPECIAL else field for field in fields)
    return ",".join(quoted) + "\n"


def _stamp(time_s: float) -> str:
    """`01:02:03.500`."""
    seconds, milliseconds = divmod(round(time_s * 1000), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}"


def _one_line(text: str) -> str:
    """Without line breaks and tabs: an empty line would end a cue."""
    return " ".join(text.split())


COLUMNS = ("file", "start_s", "end_s", "speech", "emotion", "confidence", "is_sure", "text")
CUE_FORMATS = {
    "text": CueFormat("txt", "", _text),
    "srt": CueFormat("srt", "", _srt),
    "vtt": CueFormat("vtt", "WEBVTT\n\n", _vtt),
    "csv": CueFormat("csv", _csv_line(COLUMNS), _csv, is_table=True),
    "tsv": CueFormat("tsv", "\t".join(COLUMNS) + "\n", _tsv, is_table=True),
}
