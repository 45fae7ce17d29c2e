"""Strings of strangers (models, peers, file names) made fit for a terminal, and numbers made fit for people.

What is written to a terminal obeys no stranger: no control characters, no signs that turn the direction of text, none
that take no place. A pipe gets the same, for most end at a terminal (a pager, a log); --json holds every sign, escaped.
"""

from __future__ import annotations

import unicodedata

_CONTROLS = {"Cc", "Cs"}  # Unicode categories: control characters and lone surrogates
_BREAKS = {"Zl", "Zp"}
_SEEN = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u0890\u0891\u08e2\U000110bd\U000110cd"  # of Cf, yet with a shape
_JOINERS = "\u200c\u200d"  # Persian and the scripts of India write with them, and emoji


def safe_line(text: str) -> str:
    """One line without control characters: a peer's sentence must not move the cursor."""
    spaced = (" " if unicodedata.category(sign) in _CONTROLS | _BREAKS else sign for sign in text)
    return safe_text("".join(spaced)).strip()


def safe_text(text: str, before: str = "") -> str:
    """Text as it is, line breaks and tabs included, without what a terminal would obey or not show.

    Joiners stay where they join something that needs them, after a letter beyond ASCII or an emoji.

    Args:
        before: what stands before it, such as the last character of it.
    """
    kept = before[-1:]
    for sign in text:
        if _is_shown(sign, kept[-1:]):
            kept += sign
    return kept[len(before[-1:]) :]


def _is_shown(sign: str, before: str) -> bool:
    if sign in "\n\t":
        return True
    if sign in _JOINERS:
        return not before.isascii() and before not in _JOINERS
    return sign in _SEEN or unicodedata.category(sign) not in _CONTROLS | {"Cf"}


def counted(number: int, noun: str) -> str:
    """`1 token`, `2 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def seconds(time_s: float) -> str:
    """`0.21 s`; from ten seconds on with one decimal."""
    return f"{time_s:.1f} s" if time_s >= 10 else f"{time_s:.2f} s"
