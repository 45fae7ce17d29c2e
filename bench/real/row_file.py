"""A file of JSON lines that is added to, so that what was measured survives what comes after."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

import msgspec

_Row = TypeVar("_Row", bound=msgspec.Struct)


class RowFile(Generic[_Row]):
    """Rows of one kind; those of the file, and those that are added to it.

    Args:
        path: None keeps the rows in memory only.
    """

    def __init__(self, path: Path | None, kind: type[_Row]) -> None:
        self._path = path
        self.rows: list[_Row] = []
        if path is not None and path.is_file():
            lines = path.read_bytes().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            if len(whole) < len(lines):
                path.write_bytes(b"".join(whole))  # a run was killed in its last line
            self.rows = [msgspec.json.decode(line, type=kind) for line in whole]

    def add(self, row: _Row) -> None:
        self.rows.append(row)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(row) + b"\n")
