"""A file that is read with some of its bytes replaced."""

from __future__ import annotations

import io
from typing import BinaryIO

from skydraft.audio.containers import Patch


class PatchedFile(io.RawIOBase):
    """An open file with bytes replaced at one position.

    Args:
        patch: within the file.
    """

    def __init__(self, file: BinaryIO, patch: Patch) -> None:
        self._file = file
        self._patch = patch

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        start = self._file.tell()
        data = bytearray(self._file.read(len(buffer)))
        for place, byte in enumerate(self._patch.data, self._patch.start - start):
            if 0 <= place < len(data):
                data[place] = byte
        buffer[: len(data)] = bytes(data)  # soundfile's buffer takes bytes only
        return len(data)
