from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from bench.network.naive import Judge, Question, make_server, write_naively
from skydraft.core import Prompt, SamplingParams, TokenSegment
from skydraft.engines.emulated.paced import PacedEngine
from skydraft.engines.load import load_engine
from skydraft.transport.link.pipe import Address
from tests.linked import cloud_only, table

TARGET = "table:vocab=64,seed=3,order=2"
PROMPT = (1, 2, 3)


def _truth(sampling: SamplingParams) -> list[int]:
    return cloud_only(table(TARGET), sampling, Prompt((TokenSegment(PROMPT),)))


@pytest.fixture
def address() -> Iterator[Address]:
    engine = load_engine(f"paced:step_ms=0.1:{TARGET}", "target")
    assert isinstance(engine, PacedEngine)
    with make_server(engine) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Address("127.0.0.1", server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("draft", [TARGET, f"{TARGET},noise=1", "table:vocab=64,seed=9"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_it_writes_what_the_target_alone_would(address: Address, draft: str, temperature: float) -> None:
    sampling = SamplingParams(temperature=temperature, seed=5, max_tokens=40)
    arrivals: list[int] = []
    naive = write_naively(address, load_engine(draft, "draft"), PROMPT, sampling, arrivals.append)
    assert naive.token_ids == _truth(sampling)
    assert sum(arrivals) == 40
    assert len(arrivals) == naive.rounds


def test_a_draft_that_holds_takes_a_fifth_of_the_rounds_and_the_context_grows_with_each(address: Address) -> None:
    sampling = SamplingParams(max_tokens=40)
    naive = write_naively(address, load_engine(TARGET, "draft"), PROMPT, sampling, lambda _: None)
    assert naive.rounds == 8
    assert naive.positions == 40
    assert naive.up > 8 * 20 * 2  # each round says 20 tokens of context again, on average


def test_the_server_computes_only_what_it_does_not_hold() -> None:
    engine = load_engine("paced:step_ms=0.1,node_ms=0:" + TARGET, "target")
    judge = Judge(engine)
    truth = _truth(SamplingParams(max_tokens=8))
    first = judge.judge(Question([*PROMPT], 3, truth[:4], 0.0, 0))
    again = judge.judge(Question([*PROMPT, *truth[:5]], 3, [63, 63], 0.0, 0))
    assert (first.accepted, first.token) == (4, truth[4])
    assert (again.accepted, again.token) == (0, truth[5])
    other = judge.judge(Question([9, 9], 2, [], 0.0, 0))  # another prompt, another slot
    assert other.accepted == 0
