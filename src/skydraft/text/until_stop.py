"""The text of tokens as they come, up to the first stop string."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from skydraft.text.tokenizer import TextStream, Tokenizer


class TextUntilStop:
    """Turns token ids into the text that may be shown, and finds the stop string that ends it.

    Withheld is what may yet turn out to be the beginning of a stop string, and a last character that is unfinished. A
    token counts as shown once something of its text is; one without text, with the text that follows it.

    Args:
        stops: none of them is shown; of several in a text the one that begins first ends it.

    Attributes:
        stop: the string that ended the text; None: none has.
        num_shown: tokens of which something is shown. num_after_stop: the others, where a stop string ended the text.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._stream = TextStream(tokenizer)
        self._stops = stops
        self._withheld = ""
        self._num_chars = 0  # shown
        self._starts: deque[int] = deque()  # of the tokens that are not shown: characters before their text
        self.stop: str | None = None
        self.num_shown = 0

    @property
    def num_after_stop(self) -> int:
        return 0 if self.stop is None else len(self._starts)

    def feed(self, token_id: int) -> str:
        """The text to show now that this token has come; nothing once the text has ended."""
        if self.stop is not None:
            return ""
        self._starts.append(self._num_chars + len(self._withheld))
        return self._show(self._stream.feed((token_id,)))

    def follow(self, token_id: int) -> None:
        """This token has come, and no stop string may end in it: it was written already."""
        self._starts.append(self._num_chars + len(self._withheld))
        text = self._withheld + self._stream.feed((token_id,))
        self._release(text, len(text) - self._num_withheld(text))

    def flush(self) -> str:
        """The rest of the text, which ends here, and its last tokens."""
        if self.stop is not None:
            return ""
        rest = self._show(self._stream.flush())
        if self.stop is None:
            rest += self._release(self._withheld, len(self._withheld))
            self.num_shown += len(self._starts)
            self._starts.clear()
        return rest

    def _show(self, new_text: str) -> str:
        text = self._withheld + new_text
        found = [(place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if not found:
            return self._release(text, len(text) - self._num_withheld(text))
        place, self.stop = min(found)
        return self._release(text, place)

    def _num_withheld(self, text: str) -> int:
        """How many of the last characters may begin a stop string."""
        longest = min(len(text), max(map(len, self._stops), default=1) - 1)
        return next((n for n in range(longest, 0, -1) if any(_begins(stop, text[-n:]) for stop in self._stops)), 0)

    def _release(self, text: str, length: int) -> str:
        self._withheld = text[length:]
        self._num_chars += length
        while self._starts and self._starts[0] < self._num_chars:
            self._starts.popleft()
            self.num_shown += 1
        return text[:length]


def _begins(stop: str, end: str) -> bool:
    """Whether the end of a text is a proper prefix of a stop string."""
    return len(end) < len(stop) and stop.startswith(end)
