"""When to look again at a cloud that was left for being slow: no text would show that it has become fast."""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_PAUSE, LONGEST_PAUSE = 16, 1024  # tokens that the device writes alone between two looks


@dataclass
class LookAgain:
    """Of one device with one cloud; it outlives a text. Pauses double for as long as the cloud is not gone back to."""

    _pause: int = field(default=FIRST_PAUSE, init=False)
    _num_left: int = field(default=FIRST_PAUSE, init=False)

    def went_back(self) -> None:
        """The cloud is used again."""
        self._pause = self._num_left = FIRST_PAUSE

    def wrote(self, num_tokens: int) -> bool:
        """The device wrote so many tokens alone; returns whether a look is due, and takes it that it follows."""
        self._num_left -= num_tokens
        if self._num_left > 0:
            return False
        self._num_left = self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return True
