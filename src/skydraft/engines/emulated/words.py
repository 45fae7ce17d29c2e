"""Made-up languages for table engines: a short word for each token id, or a character."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import count, islice, product

from skydraft.text.vocabulary import Vocabulary

LETTERS = ("\n", *map(chr, range(32, 127)))
_SYLLABLES = tuple(consonant + vowel for consonant in "bdfghjklmnprstvwz" for vowel in "aeiou")


class WordTokenizer:
    """Words are tokens; an unknown word gets the id that a hash of it gives."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._ids = {token: index for index, token in enumerate(vocabulary.tokens) if token is not None}

    def encode(self, text: str, add_special: bool = False) -> tuple[int, ...]:
        return tuple(self._id_of(word) for word in text.split())

    def encode_plain(self, text: str) -> tuple[int, ...]:
        return self.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        words = (self.vocabulary.token(index) for index in token_ids if index not in self.vocabulary.end_ids)
        return " ".join(word for word in words if word is not None)

    def token_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def spelling(self) -> Sequence[bytes]:
        special = dict.fromkeys(self.vocabulary.end_ids, b"\xff")
        words = enumerate(self.vocabulary.tokens)
        return [special.get(token_id, b" ") + (word or "").encode() for token_id, word in words]

    def _id_of(self, word: str) -> int:
        found = self._ids.get(word)
        return zlib.crc32(word.encode("utf-8", "surrogatepass")) % self.vocabulary.size if found is None else found


class LetterTokenizer:
    """Characters are tokens, so that a table can write whatever a grammar asks for; unknown ones are question marks."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._ids = {token: index for index, token in enumerate(vocabulary.tokens) if token is not None}

    def encode(self, text: str, add_special: bool = False) -> tuple[int, ...]:
        return tuple(self._ids.get(letter, self._ids["?"]) for letter in text)

    def encode_plain(self, text: str) -> tuple[int, ...]:
        return self.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self.vocabulary.token(index) or "" for index in token_ids)

    def token_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def spelling(self) -> Sequence[bytes]:
        return [b"\xff" if letter is None else letter.encode() for letter in self.vocabulary.tokens]


def letter_vocabulary(size: int, name: str = "table", end_ids: tuple[int, ...] = ()) -> Vocabulary:
    """A line break and the printable characters of ASCII; ids from there on are no text."""
    tokens = [*LETTERS, *(None for _ in range(size))][:size]
    return Vocabulary(name, tuple(tokens), size, end_ids)


def word_vocabulary(size: int, name: str = "table", end_ids: tuple[int, ...] = ()) -> Vocabulary:
    """The first words by length; a larger vocabulary extends a smaller one."""
    words = ("".join(word) for length in count(1) for word in product(_SYLLABLES, repeat=length))
    return Vocabulary(name, tuple(islice(words, size)), size, end_ids)
