"""Strings of strangers (models, peers, file names) made fit for a terminal, and numbers made fit for people."""

from __future__ import annotations

import unicodedata

_CONTROLS = {"Cc", "Cs"}  # Unicode categories: control characters and lone surrogates
_INVISIBLE = _CONTROLS | {"Cf", "Zl", "Zp"}  # and what turns the direction of text, or breaks lines


def printable(text: str) -> str:
    """One line without control characters: a peer's sentence must not move the cursor."""
    return "".join(" " if unicodedata.category(character) in _INVISIBLE else character for character in text).strip()


def harmless(text: str) -> str:
    """Text as it is, line breaks and tabs included, without other control characters."""
    return "".join(item for item in text if item in "\n\t" or unicodedata.category(item) not in _CONTROLS)


def counted(number: int, noun: str) -> str:
    """`1 token`, `2 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def seconds(time_s: float) -> str:
    """`0.21 s`; from ten seconds on with one decimal."""
    return f"{time_s:.1f} s" if time_s >= 10 else f"{time_s:.2f} s"
