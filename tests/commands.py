"""The commands that a page shows, as a reader would type them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SEPARATORS = {"&&", "||", "|", ";"}


def code_lines(page: str) -> list[str]:
    """The lines of its blocks of code, fenced or indented, each with the lines that it goes on in."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    indented = [line[4:] for line in page.splitlines() if line.startswith("    ")]
    lines = [line for block in fenced for line in block.splitlines()] + indented
    return re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()


def shown_commands(page: str) -> Iterator[list[str]]:
    """The arguments of each `skydraft` in its blocks of code."""
    for line in code_lines(page):
        if not re.search(r"(^|[\s(])skydraft [a-z-]+", line):
            continue
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), ";"]:
            if word not in SEPARATORS:
                words.append(word)
                continue
            if words and words[0] == "skydraft":
                yield words[1:]
            words = []


def mentioned_commands(page: str) -> list[list[str]]:
    """The arguments of each that stands in a sentence, between backticks or within $( )."""
    return [shlex.split(found) for found in re.findall(r"(?:`|\$\()skydraft ([a-z][^`)|\n]*)", page)]
