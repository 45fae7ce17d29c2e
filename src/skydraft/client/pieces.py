"""Tokens as they come -> pieces of text as they may be shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from skydraft.audio.windows import Window
from skydraft.core import TextPiece, Token
from skydraft.text.tokenizer import TextStream, Tokenizer

OnText: TypeAlias = Callable[[Sequence[TextPiece]], None]


class Pieces:
    """Of one text.

    Args:
        put: told of each piece.
        separator: before the texts that follow the first, where there are several: see `next_window`.
    """

    def __init__(self, tokenizer: Tokenizer, put: OnText, separator: str = " ") -> None:
        self._tokenizer = tokenizer
        self._put = put
        self._separator = separator
        self._stream = TextStream(tokenizer)
        self._has_begun = False

    def add(self, tokens: Sequence[Token]) -> None:
        """The text has these tokens too."""
        self._has_begun = True
        self._put([TextPiece(self._stream.feed((token.token_id,)), (token,)) for token in tokens])

    def next_window(self, window: Window) -> None:
        """Another text follows, of another window of a clip; none, where nobody speaks in it."""
        self.end()
        if self._has_begun and window.has_speech:
            self._put([TextPiece(self._separator, ())])
        self._stream = TextStream(self._tokenizer)

    def end(self) -> None:
        """The text has ended: what was withheld of it."""
        if rest := self._stream.flush():
            self._put([TextPiece(rest, ())])
