"""What a model's token ids mean, and whether two models mean the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from skydraft.errors import VocabularyMismatch

DIGEST_BYTES = 16
MAX_SHOWN_DIFFERENCES = 3


@dataclass(frozen=True)
class Vocabulary:
    """The id -> token map of a model.

    name: of the model, for error messages.
    tokens: the token of each id that the tokenizer may use, as the tokenizer spells it; None is a hole.
    size: rows of the model's logits; ids from num_tokens on are padding.
    end_ids: tokens that end a text.
    """

    name: str
    tokens: tuple[str | None, ...]
    size: int
    end_ids: tuple[int, ...] = ()

    @cached_property
    def num_tokens(self) -> int:
        """Ids from here on have no token."""
        return max((index + 1 for index, token in enumerate(self.tokens[: self.size]) if token is not None), default=0)

    def digest(self, num_tokens: int | None = None) -> bytes:
        """Hash the meaning of the first ids: equal digests, equal id -> token maps.

        Args:
            num_tokens: how many ids count; None counts all that have a token.
        Returns:
            16 bytes.
        Raises:
            ValueError: fewer ids than these have a token.
        """
        if num_tokens is None or num_tokens == self.num_tokens:
            return self._full_digest
        if not 0 <= num_tokens < self.num_tokens:
            raise ValueError(f"{self.name} has {self.num_tokens} tokens; it has no digest of the first {num_tokens}")
        return self._prefix_digests[DIGEST_BYTES * num_tokens : DIGEST_BYTES * (num_tokens + 1)]

    def token(self, token_id: int) -> str | None:
        """The token of an id; None for a hole and for padding."""
        return self.tokens[token_id] if 0 <= token_id < self.num_tokens else None

    @cached_property
    def _full_digest(self) -> bytes:
        return _digest(self.tokens[: self.num_tokens])

    @cached_property
    def _prefix_digests(self) -> bytes:
        """Of no token, of the first, of the first two ...: each peer may ask for another number of them."""
        hasher, digests = _hasher(), bytearray()
        for token in self.tokens[: self.num_tokens]:
            digests += hasher.copy().digest()
            hasher.update(_delimited(token))
        return bytes(digests)


def fit(draft: Vocabulary, target: Vocabulary) -> int:
    """Count the ids that two models share; ids beyond must be masked in the larger one's logits.

    Models of a family may pad their logits differently (Qwen2.5-Omni: 151936 rows in the 3B, 152064 in the 7B), and
    one may extend the other.

    Returns:
        The smaller number of tokens.
    Raises:
        VocabularyMismatch: an id below it means another token.
    """
    num_shared = min(draft.num_tokens, target.num_tokens)
    differences = list(islice(_differences(draft.tokens, target.tokens, num_shared), MAX_SHOWN_DIFFERENCES))
    if differences or not num_shared:
        raise VocabularyMismatch(draft.name, target.name, differences)
    return num_shared


def _differences(
    draft: Sequence[str | None], target: Sequence[str | None], num_shared: int
) -> Iterable[tuple[int, str, str]]:
    for index, (ours, theirs) in enumerate(zip(draft[:num_shared], target[:num_shared], strict=True)):
        if ours != theirs:
            yield index, _spell(ours), _spell(theirs)


def _spell(token: str | None) -> str:
    return "no token" if token is None else token


def _digest(tokens: Iterable[str | None]) -> bytes:
    return _hasher(b"".join(map(_delimited, tokens))).digest()


def _hasher(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES)


def _delimited(token: str | None) -> bytes:
    # Lengths stand before tokens so that no two maps run together to the same bytes; a hole has no length.
    if token is None:
        return b"-"
    data = token.encode("utf-8", "surrogatepass")
    return b"%d:%s" % (len(data), data)
