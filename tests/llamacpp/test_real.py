"""With real quantised models the text of both is the cloud's own, drafted or not, and after a kill."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from bench.real.pair import Pair, PairMissing, find_pair, text_keys
from bench.real.site import CLOUD, open_site
from skydraft.core import Origin, TextPiece, tokens_of
from skydraft.edge.report import Report
from tests.llamacpp.installed import require_llamacpp

require_llamacpp()

NUM_TEXTS = 12  # of 64 tokens, of all kinds, greedy and at temperature 0.8
WAYS = ("wait:4", "tree")
KILL_EVERY, KILL_AFTER = 4, 8  # texts; tokens


@pytest.fixture(scope="module")
def pair() -> Pair:
    try:
        return find_pair()
    except PairMissing as error:
        pytest.skip(str(error))


def ids_of(report: Report) -> list[int]:
    return [token.token_id for token in report.tokens]


@pytest.mark.real
@pytest.mark.timeout(3600)
async def test_texts_of_a_real_pair_are_the_clouds_own(pair: Pair) -> None:
    accepted = reconnects = 0
    async with open_site(pair) as site:
        for number, key in enumerate(text_keys(2)[:NUM_TEXTS]):
            own = await site.write(key, CLOUD)
            num_left, coming = KILL_AFTER, list[asyncio.Task[None]]()

            def kill_once(pieces: Sequence[TextPiece]) -> None:
                nonlocal num_left
                if num_left > 0 and (num_left := num_left - len(tokens_of(pieces))) <= 0:
                    coming.append(asyncio.create_task(site.replace_cloud()))  # noqa: B023  # called before the next

            is_killed = number % KILL_EVERY == KILL_EVERY - 1
            way = WAYS[number // len(WAYS) % len(WAYS)]
            both = await site.write(key, way, kill_once if is_killed else lambda _: None)
            await asyncio.gather(*coming)
            assert ids_of(both) == ids_of(own), f"{key}, {way}"
            accepted += both.num_by_origin[Origin.ACCEPTED]
            reconnects += both.reconnects
    assert accepted >= NUM_TEXTS
    assert reconnects >= NUM_TEXTS // KILL_EVERY
