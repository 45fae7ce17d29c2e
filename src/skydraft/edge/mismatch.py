"""Why a cloud's vocabulary does not fit: both sides saw only digests, so the device asks for the whole map."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.cloud_http import inquire
from skydraft.errors import TransportError, VocabularyMismatch
from skydraft.protocol.limits import MAX_NAME_CHARS
from skydraft.text.vocabulary import Vocabulary, fit

VOCABULARY_PATH = "/v1/vocabulary"
MAX_TOKEN_CHARS = 1024


class VocabularyPage(msgspec.Struct):
    """What /v1/vocabulary answers; bounded, because names and tokens stand in error messages."""

    name: Annotated[str, Meta(max_length=MAX_NAME_CHARS)]
    tokens: tuple[Annotated[str, Meta(max_length=MAX_TOKEN_CHARS)] | None, ...]


async def explain_mismatch(address: CloudAddress, ours: Vocabulary) -> VocabularyMismatch:
    """Find the first ids that differ; without them where the cloud does not say.

    Args:
        ours: the draft model's.
    """
    try:
        theirs = await inquire(address, VOCABULARY_PATH, VocabularyPage)
        fit(ours, Vocabulary(theirs.name, theirs.tokens, len(theirs.tokens)))
    except VocabularyMismatch as mismatch:
        return mismatch
    except TransportError:
        pass
    return VocabularyMismatch(ours.name, f"of the cloud at {address.url}", [])
