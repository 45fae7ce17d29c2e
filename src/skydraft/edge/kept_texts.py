"""A user's own texts, kept on the device where the user names a file for them: a JSON object a line, to read or delete.

Drafts are looked up in them, and where nobody can write, a question that was answered before is answered again.
"""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

import msgspec

from skydraft.errors import ConfigError

MOST_BYTES = 2**20  # of the file; where it would be larger, the older half is forgotten


class KeptText(msgspec.Struct, frozen=True):
    """A prompt, as the user said it, and the text that answered it."""

    prompt: str
    text: str


class KeptTexts:
    """The texts of a file.

    Attributes:
        texts: the oldest first.

    Raises:
        ConfigError: the file cannot be read or written, or a line is no text.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.texts: list[KeptText] = []
        try:
            if path.exists():
                self._load()
        except OSError as error:
            raise self._unusable(error) from error

    def answer(self, prompt: str) -> str | None:
        """What the same question was answered last; case, spaces and forms of characters do not count."""
        question = normalised(prompt)
        return next((kept.text for kept in reversed(self.texts) if normalised(kept.prompt) == question), None)

    def add(self, prompt: str, text: str) -> KeptText | None:
        """Keep a text, for its owner's eyes only; None: it would take the place of all others, and is not kept.

        Raises:
            ConfigError: the file cannot be written, or another line of it is no text.
        """
        kept = KeptText(prompt, text)
        line = msgspec.json.encode(kept) + b"\n"
        if len(line) > MOST_BYTES // 2:
            return None
        try:
            with open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
                file.write(line)
                is_full = file.tell() > MOST_BYTES
            self.texts.append(kept)
            if is_full:
                self._load()
        except OSError as error:
            raise self._unusable(error) from error
        return kept

    def _load(self) -> None:
        lines = self._path.read_bytes().splitlines(keepends=True)
        if sum(map(len, lines)) > MOST_BYTES:
            lines = _newer_half(lines)
            beside = self._path.with_name(f".{self._path.name}.new")
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.writelines(lines)
            beside.replace(self._path)
        self.texts = [self._read(number, line) for number, line in enumerate(lines, start=1)]

    def _read(self, number: int, line: bytes) -> KeptText:
        try:
            return msgspec.json.decode(line, type=KeptText)
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"line {number} of the file of texts {self._path} is none ({error}): delete the line or the file, "
                "or name another with --history"
            ) from error

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(f"the file of texts {self._path} cannot be used: {error.strerror}")


def _newer_half(lines: list[bytes]) -> list[bytes]:
    """The last lines, as many as are half of what is kept at most."""
    num_bytes = list(accumulate(map(len, reversed(lines))))
    return lines[len(lines) - bisect_right(num_bytes, MOST_BYTES // 2) :]


def normalised(prompt: str) -> str:
    """A question in the form in which two are compared."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())
