"""The README and the pages of docs/: their blocks of code, and the commands in them.

A block of `sh` or `python` is run by tests/docs/test_pages.py, one after the other as a reader would; what names stand
for says tests/docs/reader.py. A block of `text` right after it is what it prints, with `...` for anything. A comment in
the line before a block says what is different:

    <!-- not run: it fetches gigabytes -->
    <!-- needs: ffmpeg -->                      a program, or a module of Python; the page is skipped without it
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
LANGUAGES = ("sh", "python")  # that are run
SEPARATORS = {"&&", "||", "|", ";"}
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|needs): (?P<what>[^\n]*) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$"
    r"(?:\n\n```text\n(?P<prints>.*?)^```$)?",
    flags=re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """Code of a page.

    line: of its fence. not_run: why; None: it is run. needs: a program or a module; None: what all need.
    prints: what the page says that it prints; None: nothing is said.
    """

    line: int
    language: str
    code: str
    not_run: str | None
    needs: str | None
    prints: str | None


def blocks(page: str) -> list[Block]:
    """Of a page, those that are to be run and those that would be."""
    return [
        Block(
            page.count("\n", 0, found.start("code")),
            found["language"],
            found["code"],
            found["what"] if found["mark"] == "not run" else None,
            found["what"] if found["mark"] == "needs" else None,
            found["prints"],
        )
        for found in BLOCK.finditer(page)
        if found["language"] in LANGUAGES
    ]


def statements(code: str) -> list[str]:
    """Its lines, each with the lines that it goes on in."""
    return re.sub(r"\\\n\s*", "", code).splitlines()


def shown_commands(page: str) -> Iterator[list[str]]:
    """The arguments of each `skydraft` in its blocks of a shell."""
    for line in (line for block in blocks(page) if block.language == "sh" for line in statements(block.code)):
        if not re.search(r"(^|[\s(])skydraft [a-z-]+", line):
            continue
        words: list[str] = []
        for word in [*shlex.split(re.sub(r" \d?>(?:&\d| ?\S+)", "", line), comments=True), ";"]:
            if word not in SEPARATORS:
                words.append(word)
                continue
            if words and words[0] == "skydraft":
                yield words[1:]
            words = []


def mentioned_commands(page: str) -> list[list[str]]:
    """The arguments of each that stands in a sentence, between backticks or within $( )."""
    return [shlex.split(found) for found in re.findall(r"(?:`|\$\()skydraft ([a-z][^`)|\n]*)", page)]
