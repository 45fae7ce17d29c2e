"""Why a cloud's vocabulary does not fit: both sides saw only digests, so the device asks for the whole map."""

from __future__ import annotations

import msgspec

from skydraft.edge.address import CloudAddress
from skydraft.edge.inquiry import FAILURES, inquire
from skydraft.engines.vocabulary import Vocabulary, fit
from skydraft.errors import VocabularyMismatch

VOCABULARY_PATH = "/v1/vocabulary"


class _Answer(msgspec.Struct):
    """What /v1/vocabulary answers."""

    name: str
    tokens: tuple[str | None, ...]


async def explain_mismatch(address: CloudAddress, ours: Vocabulary) -> VocabularyMismatch:
    """Find the first ids that differ; without them where the cloud does not say.

    Args:
        ours: the draft model's.
    """
    try:
        theirs = await inquire(address, VOCABULARY_PATH, _Answer)
        fit(ours, Vocabulary(theirs.name, theirs.tokens, len(theirs.tokens)))
    except VocabularyMismatch as mismatch:
        return mismatch
    except FAILURES:
        pass
    return VocabularyMismatch(ours.name, f"of the cloud at {address.url}", [])
