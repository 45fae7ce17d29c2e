"""Our docstrings as griffe reads Google's: for the page of docs/ that is made from them (zensical.toml).

Ours has a line `name: what it is` for each field of a class, and no empty line before `Raises:`.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^( *)(Args|Returns|Yields|Raises|Source)(?:, [a-z ]+)?:$", re.MULTILINE)
SECTION_OF_ONE_LINE = re.compile(r"^Raises: (\w+: .*)$", re.MULTILINE)
FIELD = re.compile(r"^([a-z]\w*(?:, [a-z]\w*)*): ", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Puts empty lines before sections, and makes lists of fields."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_google_writes(obj.docstring.value)


def as_google_writes(docstring: str) -> str:
    """The same text, with sections and lists that Markdown and griffe know."""
    text = SECTION_OF_ONE_LINE.sub(r"Raises:\n    \1", docstring)
    text = SECTION.sub(r"\n\1\2:", text)
    head, fields, rest = text.partition("\n\n")
    lists = FIELD.sub(lambda found: f"\n- `{found[1]}`: ", rest)
    return head + fields + lists
