"""Strings of strangers (models, peers, file names) made fit for a terminal, and numbers made fit for people."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line without control characters: a peer's sentence must not move the cursor."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def harmless(text: str) -> str:
    """Text as it is, line breaks and tabs included, without other control characters."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t ")


def counted(number: int, noun: str) -> str:
    """`1 token`, `2 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def seconds(time_s: float) -> str:
    """`0.21 s`; from ten seconds on with one decimal."""
    return f"{time_s:.1f} s" if time_s >= 10 else f"{time_s:.2f} s"
