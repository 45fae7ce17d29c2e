"""A user's own texts as a device uses them: to look drafts up in, and to answer again what was answered before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from skydraft.decoding.suffix_index import SuffixIndex
from skydraft.edge.kept_texts import KeptText, KeptTexts


class OwnTexts:
    """The texts of a file, and an index of them, which takes about a second for the largest file.

    Args:
        to_ids: a prompt and its text, as the models see them.
    Raises:
        ConfigError: as KeptTexts.

    Attributes:
        index: of all texts; it forgets by itself, with its own bound.
    """

    def __init__(self, path: Path, to_ids: Callable[[KeptText], Sequence[int]]) -> None:
        self._kept = KeptTexts(path)
        self._to_ids = to_ids
        self.index = SuffixIndex()
        for kept in self._kept.texts:
            self._add_to_index(kept)

    def answer(self, prompt: str) -> str | None:
        """As KeptTexts.answer."""
        return self._kept.answer(prompt)

    def add(self, prompt: str, text: str) -> None:
        """Keep a text. Raises: as KeptTexts.add."""
        kept = self._kept.add(prompt, text)
        if kept is not None:
            self._add_to_index(kept)

    def _add_to_index(self, kept: KeptText) -> None:
        self.index.begin_document()
        self.index.extend(self._to_ids(kept))
        self.index.begin_document()  # this one does not grow
