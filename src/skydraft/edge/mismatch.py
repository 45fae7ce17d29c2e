"""Why a cloud's vocabulary does not fit: both sides saw only digests, so the device asks for the whole map."""

from __future__ import annotations

import asyncio
import http.client
import urllib.request

import msgspec

from skydraft.edge.address import CloudAddress
from skydraft.engines.vocabulary import Vocabulary, fit
from skydraft.errors import VocabularyMismatch
from skydraft.transport.address import SESSION_PATH, session_url

VOCABULARY_PATH = "/v1/vocabulary"
MAX_BYTES = 2**26
TIMEOUT_S = 10.0


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
        theirs = await asyncio.to_thread(_fetch, address)
        fit(ours, Vocabulary(theirs.name, theirs.tokens, len(theirs.tokens)))
    except VocabularyMismatch as mismatch:
        return mismatch
    except (OSError, ValueError, http.client.HTTPException, msgspec.MsgspecError):
        pass
    return VocabularyMismatch(ours.name, f"of the cloud at {address.url}", [])


def _fetch(address: CloudAddress) -> _Answer:
    url = "http" + session_url(address.url).removeprefix("ws").removesuffix(SESSION_PATH) + VOCABULARY_PATH
    headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return msgspec.json.decode(response.read(MAX_BYTES), type=_Answer)
