"""Where captions go, and in which format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO, cast

from skydraft.cli.recordings import stem_of
from skydraft.cli.results import JsonObject, Result, as_json, to_line
from skydraft.cli.screen import Screen
from skydraft.cli.terminal_text import safe_text
from skydraft.errors import ConfigError
from skydraft.tasks.cues import CUE_FORMATS
from skydraft.tasks.recording_summary import summarise

JSON, TEXT = "json", "text"
ERRORS = "backslashreplace"  # names of files may have bytes that are no text
FORMATS = (*CUE_FORMATS, JSON)


class CaptionOutput:
    """Writes the results of recordings, one after the other.

    Args:
        to: one of `FORMATS`.
        path: a file for all, or a folder with a file for each; None: standard output.
        files: the recordings.
    Raises:
        ConfigError: the path cannot be written to, is one of the recordings, or is one file where the format takes one
            recording.
    """

    def __init__(self, screen: Screen, to: str, path: Path | None, files: Sequence[str]) -> None:
        self._screen = screen
        self._to = to
        self._path = path
        self._is_folder = path is not None and path.is_dir()
        self._has_many = len(files) > 1
        self._written: set[Path] = set()
        self._has_begun = False
        if path is not None and not self._is_folder:
            _require_writable(path, files)
        if self._has_many and not self._is_folder and to in CUE_FORMATS and to != TEXT and not CUE_FORMATS[to].is_table:
            raise ConfigError(f"{to} is a format of one recording and {len(files)} are given: add -o FOLDER")

    @property
    def is_live(self) -> bool:
        """Whether captions appear while they are written, which is not done here."""
        return self._to == TEXT and self._path is None

    def add(self, file: str, result: Result) -> None:
        """Write the captions of a recording."""
        self._write(
            file, to_line(as_json({"file": file}, result)) + "\n" if self._to == JSON else self._cues(file, result)
        )

    def fail(self, file: str, error: Exception) -> None:
        """Write that a recording has no caption, where the format has a place for that."""
        if self._to == JSON:
            failure: JsonObject = {"file": file, "error": str(error)}
            self._write(file, to_line(failure) + "\n")

    def _cues(self, file: str, result: Result) -> str:
        if self._to == TEXT:
            return self._text(file, result)
        form = CUE_FORMATS[self._to]
        header = "" if self._has_begun and not self._is_folder else form.header
        cues = [cue for cue in result.cues if cue.has_speech or form.is_table]
        return header + "".join(form.write(file, number, cue) for number, cue in enumerate(cues, 1))

    def _text(self, file: str, result: Result) -> str:
        heading = f"{file}: " if self._has_many and not self._is_folder else ""
        if len(result.cues) == 1:
            return f"{heading}{result.text}\n"
        lines = [CUE_FORMATS[TEXT].write(file, number, cue) for number, cue in enumerate(result.cues, 1)]
        return "".join(f"{heading}{line}" for line in [*lines, f"{summary_line(result)}\n"])

    def _write(self, file: str, text: str) -> None:
        if self._path is None:
            self._screen.whole(text if self._to == JSON else safe_text(text))
        else:
            self._to_file(self._target(self._path, file), text)
        self._has_begun = True

    def _target(self, path: Path, file: str) -> Path:
        """The file for a recording: of two with one name, the later has a number."""
        if not self._is_folder:
            return path
        suffix = JSON if self._to == JSON else CUE_FORMATS[self._to].suffix
        stem, number = stem_of(file), 1
        while (target := path / f"{stem}{f'-{number}' if number > 1 else ''}.{suffix}") in self._written:
            number += 1
        return target

    def _to_file(self, target: Path, text: str) -> None:
        with open_output(target, "a" if target in self._written else "w") as file:
            file.write(text)
        self._written.add(target)


def chosen_format(name: str | None, is_json: bool) -> str:
    """The format of `--format` and `--json`.

    Raises:
        ConfigError: they name two.
    """
    if is_json and name not in (None, JSON):
        raise ConfigError(f"--json and --format {name} are two formats: leave one of them out")
    return JSON if is_json else name or TEXT


def open_output(path: Path, mode: str = "w") -> TextIO:
    """Open a file for captions.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        return cast(TextIO, path.open(mode, encoding="utf-8", newline="", errors=ERRORS))
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written ({error.strerror or error}): name another") from None


def _require_writable(path: Path, files: Sequence[str]) -> None:
    """Refuse a file that is one of the recordings or in no folder, before models are loaded.

    Raises:
        ConfigError: naming it.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"the folder of {str(path)!r} does not exist: make it, or name another with -o")
    if any(path.exists() and Path(file).exists() and path.samefile(file) for file in files):
        raise ConfigError(f"{str(path)!r} is one of the recordings and would be overwritten: name another with -o")


def summary_line(result: Result) -> str:
    """`Summary: mostly calm, angry from 02:10 to 02:31.`"""
    return f"Summary: {summarise(result.cues)}."
