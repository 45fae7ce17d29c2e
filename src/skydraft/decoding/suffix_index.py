"""Where the last tokens of a text stood before: an index over token ids that grows with the text.

Each place is filed under the KEY tokens before it, and the places under one key are chained from the latest back, as
the compressors of the LZ77 family do it (RFC 1951, section 4). Appending a token takes constant time, and finding what
agrees longest MOST_PLACES comparisons at most.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

KEY = 2  # tokens: the shortest match
LONGEST = 32  # tokens: longer matches count as of this length
MOST_PLACES = 16  # under a key that are compared, the latest
CAPACITY = 2**17  # tokens: about 16 bytes each, and a dictionary's entry for each different key

START = -1  # each document begins with KEY of these, so that its first token has a key too
_NONE = -1


class Match(NamedTuple):
    """A place in an index. length: tokens before it that are also the last ones of what was looked for."""

    length: int
    place: int


class SuffixIndex:
    """Documents, the last of which may still grow.

    Args:
        capacity: tokens that are kept; when there are more, the older half is forgotten.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._ids = array("q")
        self._heads: dict[tuple[int, ...], int] = {}  # the latest place under each key
        self._previous = array("q")  # of each place: the one before it under the same key

    def __len__(self) -> int:
        return len(self._ids)

    def begin_document(self) -> None:
        """What comes next does not continue what came before."""
        self.extend((START,) * KEY)

    def extend(self, token_ids: Sequence[int]) -> None:
        """The last document grew."""
        ids, heads, previous = self._ids, self._heads, self._previous
        for token_id in token_ids:
            before = _NONE
            if token_id != START and len(ids) >= KEY:
                key = tuple(ids[-KEY:])
                before, heads[key] = heads.get(key, _NONE), len(ids)
            previous.append(before)
            ids.append(token_id)
        if len(ids) > self._capacity:
            self._forget()

    def find(self, suffix: Sequence[int], count: int) -> list[Match]:
        """The places behind the longest matches with a suffix, each in front of another token.

        Args:
            suffix: of a text; its last LONGEST tokens count.
            count: at most so many; the longest first, of equally long ones the latest.
        """
        place = self._heads.get(tuple(suffix[-KEY:]), _NONE)
        best: dict[int, Match] = {}  # by the token that stands there
        for _ in range(MOST_PLACES):
            if place == _NONE:
                break
            match, token_id = Match(self._num_common(suffix, place), place), self._ids[place]
            if token_id not in best or match.length > best[token_id].length:
                best[token_id] = match
            place = self._previous[place]
        return sorted(best.values(), reverse=True)[:count]

    def following(self, place: int, count: int) -> list[int]:
        """The tokens from a place on, to the end of its document; the last one is taken to repeat itself.

        Args:
            count: at most so many.
        """
        found: list[int] = []
        for index in range(place, place + count):
            token_id = self._ids[index] if index < len(self._ids) else found[index - len(self._ids)]
            if token_id == START:
                break
            found.append(token_id)
        return found

    def _num_common(self, suffix: Sequence[int], place: int) -> int:
        """How many of the last tokens of a suffix stand before a place."""
        length, most = 0, min(len(suffix), place, LONGEST)
        while length < most and suffix[-1 - length] == self._ids[place - 1 - length]:
            length += 1
        return length

    def _forget(self) -> None:
        kept = self._ids[-(self._capacity // 2) :]
        self._ids, self._heads, self._previous = array("q"), {}, array("q")
        self.extend(kept)
