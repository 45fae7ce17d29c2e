"""When to look again at what was given up for being slow: nothing else would show that it has become fast."""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_PAUSE, LONGEST_PAUSE = 16, 1024  # tokens between two looks


@dataclass
class LookAgain:
    """Of one device with one cloud; it outlives a text. Pauses double for as long as it is not gone back to."""

    first_pause: int = FIRST_PAUSE
    _pause: int = field(default=0, init=False)
    _num_left: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.went_back()

    def went_back(self) -> None:
        """It is used again."""
        self._pause = self._num_left = self.first_pause

    def wrote(self, num_tokens: int) -> bool:
        """So many tokens were written without it; returns whether a look is due, and takes it that it follows."""
        self._num_left -= num_tokens
        if self._num_left > 0:
            return False
        self._num_left = self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return True
