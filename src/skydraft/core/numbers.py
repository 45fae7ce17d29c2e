"""Numbers as people and peers write them: ASCII digits and nothing else."""

from __future__ import annotations

import math
import re

_INT = re.compile(r"-?[0-9]{1,40}")
_FLOAT = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def read_int(text: str) -> int:
    """Read a whole number: ASCII digits, perhaps behind a minus. `int` takes more: ` 5`, `1_0`, digits of any script.

    Raises:
        ValueError: it is none.
    """
    if not _INT.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def read_float(text: str) -> float:
    """Read a number as `0.25`, `-2` or `1e-05`: ASCII, without the blanks, underscores, inf and nan of `float`.

    Raises:
        ValueError: it is none, or too large.
    """
    number = float(text) if _FLOAT.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a number")
    return number
