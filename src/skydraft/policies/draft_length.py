"""How many tokens to draft before the next one is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from skydraft.errors import ConfigError

MAX_DRAFT_LENGTH = 64


class DraftLength(Protocol):
    """One session's draft length. Each session has its own: it remembers what became of the last blocks."""

    def next_length(self) -> int:
        """How many tokens to draft next; asking changes nothing. The caller cuts it to what the cloud takes."""

    def observe(self, num_drafted: int, num_accepted: int) -> None:
        """Learn how a judged block ended; fewer accepted than drafted means that a correction followed.

        A block that the gate kept on the device was not judged and is not observed.

        Raises:
            ValueError: num_drafted is below 1, or num_accepted is not within 0 to num_drafted.
        """


@dataclass(frozen=True)
class FixedDraftLength:
    """Always the same length."""

    length: int

    def __post_init__(self) -> None:
        _require_length(self.length)

    def next_length(self) -> int:
        return self.length

    def observe(self, num_drafted: int, num_accepted: int) -> None:
        _require_counts(num_drafted, num_accepted)


@dataclass
class UgsdDraftLength:
    """Shorter after a correction, longer while the cloud agrees.

    Blocks have `base` tokens; `after_correction` for the block after one that did not hold whole; `after_agreement`
    once two blocks in a row were accepted whole, until one is not.

    Source: uncertainty-guided speculative decoding, Xue et al. 2026, arXiv 2603.11397.
    """

    base: int = 5
    after_correction: int = 3
    after_agreement: int = 7
    _num_whole: int | None = field(default=None, init=False)  # blocks accepted whole in a row; None: none was judged

    def __post_init__(self) -> None:
        for length in (self.base, self.after_correction, self.after_agreement):
            _require_length(length)

    def next_length(self) -> int:
        match self._num_whole:
            case 0:
                return self.after_correction
            case None | 1:
                return self.base
            case _:
                return self.after_agreement

    def observe(self, num_drafted: int, num_accepted: int) -> None:
        _require_counts(num_drafted, num_accepted)
        is_whole = num_accepted == num_drafted
        self._num_whole = (self._num_whole or 0) + 1 if is_whole else 0


def draft_length(block_length: int) -> DraftLength:
    """Make a session's policy from the setting `block_length`: 0 adapts, any other number is fixed.

    Raises:
        ConfigError: it is not 0 to 64.
    """
    return FixedDraftLength(block_length) if block_length else UgsdDraftLength()


def _require_length(length: int) -> None:
    if not 1 <= length <= MAX_DRAFT_LENGTH:
        raise ConfigError(f"a draft length is {length} and must be 1 to {MAX_DRAFT_LENGTH}")


def _require_counts(num_drafted: int, num_accepted: int) -> None:
    if num_drafted < 1 or not 0 <= num_accepted <= num_drafted:
        raise ValueError(
            f"{num_accepted} accepted of {num_drafted} drafted tokens: a judged block has at least one, and 0 to all "
            "of them are accepted"
        )
