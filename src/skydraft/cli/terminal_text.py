"""Text from models, peers and file names made safe for a terminal, and numbers made readable.

Control characters, characters that change the direction of text and invisible characters are removed, so that no such
text controls the terminal. Output to a pipe gets the same treatment, because most pipes end at a terminal (a pager, a
log); --json keeps every character, escaped.
"""

from __future__ import annotations

import unicodedata

_CONTROLS = {"Cc", "Cs"}  # Unicode categories: control characters and lone surrogates
_BREAKS = {"Zl", "Zp"}
_SEEN = (
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u0890\u0891\u08e2\U000110bd\U000110cd"  # of category Cf, but visible
)
_JOINERS = "\u200c\u200d"  # used by Persian, the scripts of India and emoji


def safe_line(text: str) -> str:
    """Text as one line, each control character replaced by a space."""
    spaced = (" " if unicodedata.category(sign) in _CONTROLS | _BREAKS else sign for sign in text)
    return safe_text("".join(spaced)).strip()


def safe_text(text: str, before: str = "") -> str:
    """Remove what controls a terminal or is invisible on it; line breaks and tabs stay.

    Joiners stay after a letter beyond ASCII or an emoji, where they have a meaning.

    Args:
        before: the text before this one, or its last character.
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
