"""Stop strings and log-probabilities, from the device to a cloud on loopback and back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from skydraft.config import CloudSettings
from skydraft.core import Finish, Grammar, Mode, Rank
from skydraft.engines.load import load_tokenizer
from skydraft.errors import CloudFault
from skydraft.policies.way import parse_way
from tests.cloud.running import running
from tests.edge.test_writer import SAMPLING, TARGET, ids, write
from tests.linked import cloud_only, table

TOKENIZER = load_tokenizer(TARGET, "target")
TRUTH = cloud_only(table(TARGET), SAMPLING)
WORDS = [TOKENIZER.decode([token_id]) for token_id in TRUTH]
STOP = f"{WORDS[9][-1]} {WORDS[10]} {WORDS[11][:1]}"  # it begins and ends within a token
SHOWN = " ".join(WORDS).partition(STOP)[0]
STOPPING = replace(SAMPLING, stop=(STOP, "nothing"), top_logprobs=1)


@pytest.fixture(scope="module")
def reading_cloud() -> Iterator[str]:
    """A cloud that has its model's tokenizer."""
    with running(CloudSettings(port=0, model=TARGET), lambda: table(TARGET)) as served:
        yield served.address


@pytest.mark.parametrize("way", ["wait:5", "pipelined:3", "tree", "free", "auto", "cloud"])
async def test_a_text_ends_before_a_stop_string_in_every_way(reading_cloud: str, way: str) -> None:
    report = await write(reading_cloud, sampling=STOPPING, way=parse_way(way))
    assert report.text == SHOWN
    assert (report.finish, report.stop) == (Finish.STOP, STOP)
    assert ids(report) == TRUTH[: len(report.tokens)]
    assert len(report.tokens) == len(SHOWN.split())
    assert all(token.logprobs is not None for token in report.tokens)
    assert report.ended_early is None


@pytest.mark.parametrize("mode", [Mode.CLOUD, Mode.EDGE])
async def test_it_does_in_the_other_modes(reading_cloud: str, mode: Mode) -> None:
    report = await write(reading_cloud if mode is Mode.CLOUD else None, draft=TARGET, sampling=STOPPING, mode=mode)
    assert report.text == SHOWN
    assert report.stop == STOP
    assert all((token.logprobs is None) == (mode is Mode.EDGE) for token in report.tokens)


GRAMMAR = Grammar("regex", "( b[aeiou]){3,7} d[ai]")


@pytest.mark.parametrize("mode", [Mode.HYBRID, Mode.CLOUD, Mode.EDGE])
async def test_a_text_ends_where_its_grammar_is_complete(reading_cloud: str, mode: Mode) -> None:
    sampling = replace(SAMPLING, grammar=GRAMMAR)
    report = await write(None if mode is Mode.EDGE else reading_cloud, draft=TARGET, sampling=sampling, mode=mode)
    assert ids(report) == cloud_only(table(TARGET), sampling)
    assert re.fullmatch(GRAMMAR.source, f" {report.text}")
    assert (report.finish, report.stop) == (Finish.STOP, None)


async def test_a_text_without_a_stop_string_in_it_is_whole(reading_cloud: str) -> None:
    report = await write(reading_cloud, sampling=replace(SAMPLING, stop=("nothing",)))
    assert ids(report) == TRUTH
    assert report.text == " ".join(WORDS)
    assert (report.finish, report.stop) == (Finish.LENGTH, None)


async def test_a_lenient_rule_ends_before_it_too(reading_cloud: str) -> None:
    report = await write(reading_cloud, sampling=STOPPING, rule=Rank(8), draft=TARGET)
    assert report.text == SHOWN


async def test_a_cloud_that_cannot_read_its_tokens_says_so(address: str) -> None:
    with pytest.raises(CloudFault, match="tokens as text: leave stop strings and the grammar out"):
        await write(address, sampling=STOPPING)
