"""A user's own texts, kept on the device where the user names a file for them: a JSON object a line, to read or delete.

Drafts are looked up in them, and where nobody can write, a question that was answered before is answered again.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import msgspec

from skydraft.errors import ConfigError

MOST_BYTES = 2**20  # of the file; when it is larger, the older half is forgotten


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

    def add(self, prompt: str, text: str) -> None:
        """Keep a text, for its owner's eyes only. Raises: ConfigError: the file cannot be written."""
        kept = KeptText(prompt, text)
        try:
            with open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
                file.write(msgspec.json.encode(kept) + b"\n")
        except OSError as error:
            raise self._unusable(error) from error
        self.texts.append(kept)

    def _load(self) -> None:
        lines = self._path.read_bytes().splitlines(keepends=True)
        num_bytes = sum(map(len, lines))
        if num_bytes > MOST_BYTES:
            while num_bytes > MOST_BYTES // 2:
                num_bytes -= len(lines.pop(0))
            beside = self._path.with_name(f".{self._path.name}.new")
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.writelines(lines)
            beside.replace(self._path)
        for number, line in enumerate(lines, start=1):
            try:
                self.texts.append(msgspec.json.decode(line, type=KeptText))
            except msgspec.DecodeError as error:
                raise ConfigError(
                    f"line {number} of the file of texts {self._path} is none ({error}): delete the line or the file, "
                    "or name another with --history"
                ) from error

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(f"the file of texts {self._path} cannot be used: {error.strerror}")


def normalised(prompt: str) -> str:
    """A question in the form in which two are compared."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())
