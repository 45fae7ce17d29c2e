"""What the cloud would have written where the device wrote alone; what was shown does not change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from msgspec.structs import replace

from skydraft.core import Evidence, Exact, Origin, Token
from skydraft.decoding.edge_session import EdgeSession
from skydraft.edge.border import Border
from skydraft.edge.cloud_client import CloudClient
from skydraft.edge.drafter import num_common
from skydraft.edge.job import Job
from skydraft.errors import ConfigError


class Review(NamedTuple):
    """A stretch of a text that the device wrote alone.

    start, end: positions of its tokens. text: of it.
    cloud_text: that the cloud would have written from `start` on, to the same length or to its own end.
    num_agreed: tokens from `start` on that are the same in both.
    """

    start: int
    end: int
    text: str
    cloud_text: str
    num_agreed: int

    @property
    def is_same(self) -> bool:
        return self.num_agreed == self.end - self.start


async def review(job: Job, tokens: Sequence[Token]) -> list[Review]:
    """Ask the cloud of a text about each stretch that the device wrote alone, with the same seed.

    Raises:
        ConfigError: there is no cloud, or nothing of the prompt may be told it.
        TransportError, CloudFault: it cannot be reached, or refuses.
    """
    return [await _review_stretch(job, tokens, start, end) for start, end in stretches(tokens)]


def stretches(tokens: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """Where the device wrote alone: positions of the first token and behind the last one."""
    position = 0
    for is_alone, group in groupby(tokens, lambda token: token.origin is Origin.EDGE):
        start, position = position, position + len(list(group))
        if is_alone:
            yield start, position


async def _review_stretch(job: Job, tokens: Sequence[Token], start: int, end: int) -> Review:
    if job.address is None or job.prompts.cloud is None:
        raise ConfigError("no cloud may be asked what it would have written: name one, and share tokens or features")
    if job.evidence is not Evidence.ALWAYS and job.prompts.cloud.has_evidence:
        raise ConfigError("the cloud is not told the evidence for a review: say that it may be, with evidence always")
    ids = [token.token_id for token in tokens]
    sampling = replace(job.sampling, max_tokens=end)
    session = EdgeSession(job.vocabulary, job.prompts.cloud, sampling, Exact())
    session.commit(ids[:start])
    patience = job.patience._replace(offline="fail")
    client = CloudClient(session, Border(job.settings.share), job.address, patience, pads=job.settings.pad)
    try:
        while not session.is_complete:
            await client.listen(end)
    finally:
        await client.close()
    own, theirs = ids[start:end], list(session.token_ids[start:])
    return Review(start, end, job.reader.decode(own), job.reader.decode(theirs), num_common(own, theirs))
