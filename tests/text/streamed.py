"""Texts as a tokenizer's tokens give them, one at a time."""

from __future__ import annotations

from collections.abc import Sequence

from skydraft.text.tokenizer import TextStream, Tokenizer


def stream(tokenizer: Tokenizer, ids: Sequence[int], context: Sequence[int] = ()) -> list[str]:
    """The pieces, one id at a time."""
    text = TextStream(tokenizer, context)
    return [text.feed([token_id]) for token_id in ids] + [text.flush()]


def ids_of(tokenizer: Tokenizer, *tokens: str) -> list[int]:
    """Of tokens that the vocabulary has."""
    ids = [tokenizer.token_id(token) for token in tokens]
    return [token_id for token_id in ids if token_id is not None]
