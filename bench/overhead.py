"""What skydraft itself costs, without models: a table engine in a cloud on loopback, in a process of its own.

Claims:
    round_ms_p50: from an offer sent to its verdict applied, 8 drafted tokens of which all hold.
    codec_us: a core.Draft of 8 tokens to bytes and back, both ends' work.
    draft_payload_bytes: of that message, ids below 2**18, position 200.
"""

from __future__ import annotations

import asyncio
import statistics
import time
import timeit

from bench.claims import Claim, parse_arguments, pin, show
from bench.replay import write_alone
from skydraft.core import Draft, Exact, Prompt, SamplingParams, ShareLevel, TokenSegment
from skydraft.decoding.edge_session import EdgeSession
from skydraft.edge.border import Border
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.cloud_client import CloudClient
from skydraft.edge.drafter import Block
from skydraft.edge.local_cloud import local_cloud
from skydraft.edge.patience import Patience
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.protocol import codec, messages, offers

MODEL = "table:vocab=64,seed=3"
PROMPT = Prompt((TokenSegment((1, 2, 3)),))
NUM_TOKENS = 4000  # of a text
DRAFT_TOKENS = 8
NUM_IDS = 2**18
EDGE_CORE, CLOUD_CORE = 0, 1


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    draft = Draft.chain(200, tuple(range(NUM_IDS - DRAFT_TOKENS, NUM_IDS)))
    num_rounds = 500 if arguments.quick else 5000
    rounds_ms = asyncio.run(_measure_rounds(num_rounds))
    claims = [
        Claim("round_ms_p50", statistics.median(rounds_ms), "ms", len(rounds_ms)),
        _measure_codec(draft, 1000 if arguments.quick else 5000),
        Claim("draft_payload_bytes", len(codec.encode(offers.to_wire(draft, 0, NUM_IDS, Exact()))), "bytes", 1),
    ]
    show(claims, arguments.json)


def _measure_codec(draft: Draft, number: int) -> Claim:
    def there_and_back() -> None:
        data = codec.encode(offers.to_wire(draft, 0, NUM_IDS, Exact()))
        message = codec.decode_edge_message(data)
        assert isinstance(message, messages.Offer)
        offers.from_wire(message, NUM_IDS, Exact())

    times_s = timeit.repeat(there_and_back, number=number, repeat=9)
    return Claim("codec_us", statistics.median(times_s) / number * 1e6, "us", 9 * number)


async def _measure_rounds(num_rounds: int) -> list[float]:
    engine = load_engine(MODEL, "target", EngineSettings(max_length=NUM_TOKENS + 8))
    truth = write_alone(engine, PROMPT, SamplingParams(max_tokens=NUM_TOKENS))
    pin(CLOUD_CORE)  # the cloud's process inherits it
    async with local_cloud(MODEL) as url:
        pin(EDGE_CORE)
        times_ms: list[float] = []
        while len(times_ms) < num_rounds:
            times_ms += await _measure_text(url, truth)
        return times_ms[:num_rounds]


async def _measure_text(url: str, truth: list[int]) -> list[float]:
    """Rounds of one session until its text is complete; the first few warm up and do not count."""
    sampling = SamplingParams(max_tokens=len(truth))
    session = EdgeSession(load_engine(MODEL, "draft").vocabulary, PROMPT, sampling, Exact())
    client = CloudClient(session, Border(ShareLevel.TOKENS), CloudAddress(url), Patience("fail", 0))
    await client.open()
    times_ms = []
    while not session.is_complete:
        start = len(session.token_ids)
        block = Block(tuple(truth[start : start + DRAFT_TOKENS]), (), None)
        began_s = time.perf_counter()
        await client.ask(block)
        times_ms.append((time.perf_counter() - began_s) * 1000)
    await client.close()
    return times_ms[20:]


if __name__ == "__main__":
    main()
