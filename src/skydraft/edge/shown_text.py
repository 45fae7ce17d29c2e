"""What is shown of a text while it is written."""

from __future__ import annotations

from collections.abc import Sequence

from skydraft.core import TextPiece, Token
from skydraft.text.grammar_matcher import GrammarMatcher
from skydraft.text.until_stop import TextUntilStop


class ShownText:
    """Makes pieces of tokens as they come.

    Args:
        matcher: where the text has a grammar.

    Attributes:
        pieces: all so far: their texts are the text, and their tokens its tokens, without those of a stop string.
    """

    def __init__(self, until_stop: TextUntilStop, matcher: GrammarMatcher | None = None) -> None:
        self._until_stop = until_stop
        self._matcher = matcher
        self._tokens: list[Token] = []
        self._num_told = 0  # tokens in pieces
        self.pieces: list[TextPiece] = []

    @property
    def stop(self) -> str | None:
        """The stop string that ended the text; None: none has."""
        return self._until_stop.stop

    @property
    def has_ended(self) -> bool:
        """Whether the text has come to a stop string, or its grammar is complete."""
        return self.stop is not None or (self._matcher is not None and self._matcher.has_ended)

    def add(self, tokens: Sequence[Token]) -> list[TextPiece]:
        """The text has these tokens too: what may be shown now, a piece for each of them as a rule."""
        length = len(self.pieces)
        for token in tokens:
            if not self.has_ended:
                self._tokens.append(token)
                if self._matcher is not None:
                    self._matcher.follow(token.token_id)
                self._append(self._until_stop.feed(token.token_id))
        return self.pieces[length:]

    def end(self) -> list[TextPiece]:
        """The text ends here: what was withheld."""
        length = len(self.pieces)
        self._append(self._until_stop.flush())
        return self.pieces[length:]

    def _append(self, text: str) -> None:
        start, self._num_told = self._num_told, self._until_stop.num_shown
        piece = TextPiece(text, tuple(self._tokens[start : self._num_told]))
        if piece.text or piece.tokens:
            self.pieces.append(piece)
