"""What an API asks of a text, each field alone and with each other: the text is the cloud's own, drafts stay good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from random import Random
from typing import Any

import numpy as np
import pytest

from skydraft.core import Exact, Grammar, Origin, SamplingParams, Token, json_object, json_schema
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.base import Extension
from skydraft.engines.emulated.table import TableEngine
from skydraft.engines.emulated.words import WordTokenizer
from skydraft.policies.way import FREE, TREE, chain
from skydraft.text.vocabulary import Vocabulary
from tests.decoding.test_drafting import Bench
from tests.linked import PROMPT, Linked, Pieces, cloud_only, random_tree, table
from tests.sampling.helpers import softmax

TARGET = "table:vocab=24,seed=5,order=2"
DRAFT = f"{TARGET},noise=1"
WAYS = [TREE, chain(4), FREE, chain(3, max_in_flight=4, is_eager=True)]
NUM_TEXTS = 50
FIELDS: dict[str, dict[str, Any]] = {
    "min_p": {"min_p": 0.2},
    "presence": {"presence_penalty": 1.1},
    "frequency": {"frequency_penalty": 0.6},
    "repetition": {"repetition_penalty": 1.4},
    "bias": {"logit_bias": ((2, -100.0), (7, 1.5), (23, 0.5))},
    "logprobs": {"top_logprobs": 3},
    "stop": {"stop": ("di", "e fa", "bo be", "nothing")},
    "grammar": {"grammar": Grammar("regex", "( [bd][aeiou]| g[ae] f[aeiou]){2,18} [fg][io]")},
}
ALONE_AND_IN_PAIRS = [(name,) for name in FIELDS] + list(combinations(FIELDS, 2))


def sampling_of(names: tuple[str, ...], number: int) -> SamplingParams:
    """Greedy for every second text."""
    fields = {name: value for field in names for name, value in FIELDS[field].items()}
    return SamplingParams(temperature=0.8 * (number % 2), seed=number, max_tokens=20, **fields)


def until_stop(token_ids: list[int], stops: Sequence[str]) -> list[int]:
    """Up to the token with which the text has one of these."""
    words = WordTokenizer(table(TARGET).vocabulary)
    for length in range(1, len(token_ids) + 1):
        text = words.decode(token_ids[:length])
        if any(stop in text for stop in stops):
            return token_ids[:length]
    return token_ids


@cache
def plain_text(number: int) -> list[int]:
    return cloud_only(table(TARGET), sampling_of((), number))


def write(bench: Bench, rng: Random) -> None:
    """Device and cloud in turns, of uneven lengths; the connection is lost now and then."""
    while not bench.session.is_complete:
        bench.connect()
        for _ in range(rng.randint(1, 8)):
            bench.think()
        while bench.link.up:
            bench.link.carry_up()
        bench.link.think()
        if rng.random() < 0.01:
            bench.cut()
        while bench.link.down:
            bench.listen()


def assert_logprobs(tokens: Sequence[Token], sampling: SamplingParams) -> None:
    """Of every token, accepted or not, what the target's softmax gives it and the most probable ones."""
    if sampling.top_logprobs is None:
        assert all(token.logprobs is None for token in tokens)
        return
    model = table(TARGET)
    slot, first = model.open(PROMPT)
    (rest,) = model.extend([Extension.chain(slot, [token.token_id for token in tokens])])
    for token, row in zip(tokens, [first, *rest], strict=False):
        assert token.logprobs is not None
        log_probs = np.log(softmax(row.astype(np.float64)))
        best = np.argsort(-log_probs)[: sampling.top_logprobs]
        assert token.logprobs.logprob == pytest.approx(log_probs[token.token_id], rel=1e-6)
        assert [token_id for token_id, _ in token.logprobs.top] == best.tolist()
        assert [value for _, value in token.logprobs.top] == pytest.approx(log_probs[best].tolist(), rel=1e-6)


@pytest.mark.parametrize("names", ALONE_AND_IN_PAIRS, ids="+".join)
def test_hybrid_text_is_the_clouds_own_under_every_field_and_pair(names: tuple[str, ...]) -> None:
    num_plain = num_stopped = 0
    for number in range(NUM_TEXTS):
        sampling = sampling_of(names, number)
        bench = Bench(DRAFT, WAYS[number // 2 % len(WAYS)], sampling, target=TARGET)
        write(bench, Random(number))
        truth = until_stop(cloud_only(table(TARGET), sampling), sampling.stop)
        assert list(bench.session.token_ids) == truth
        assert_logprobs(bench.session.tokens(), sampling)
        num_plain += truth == plain_text(number)
        num_stopped += bench.session.has_stopped
    assert num_plain < NUM_TEXTS or names == ("logprobs",)  # the field does something
    assert bool(num_stopped) == bool({"stop", "grammar"} & {*names})


@pytest.mark.parametrize("way", [TREE, chain(4)])
def test_a_draft_like_its_target_is_never_wrong_whatever_shapes_the_choice(way: Any) -> None:
    for number in range(8):
        bench = Bench(TARGET, way, sampling_of(tuple(FIELDS), number), target=TARGET)
        write(bench, Random(number))
        origins = [token.origin for token in bench.session.tokens()]
        assert Origin.CORRECTED not in origins
        assert origins.count(Origin.ACCEPTED) > len(origins) / 2


JSON_TOKENS = ("{", "}", "[", "]", ":", ",", '"a"', '"b"', "1", "true")
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}, "b": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("grammar", [json_object(), json_schema(SCHEMA)])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_json_is_the_clouds_own_and_of_its_schema(grammar: Grammar, temperature: float) -> None:
    num_whole = 0
    for number in range(12):
        rows = 2 * np.random.default_rng(number).standard_normal((10, 10), dtype=np.float32)
        rows[:, 1] += 1.0  # texts come to an end
        engine = TableEngine(rows, vocabulary=Vocabulary("json", JSON_TOKENS, 10))
        sampling = SamplingParams(temperature=temperature, seed=number, max_tokens=60, grammar=grammar)
        tokenizer = Pieces(engine.vocabulary)
        truth = cloud_only(engine, sampling, tokenizer=tokenizer)
        session = EdgeSession(engine.vocabulary, PROMPT, sampling, Exact())
        linked = Linked(session, engine, tokenizer=tokenizer)
        linked.open()
        rng = Random(number)
        while not session.is_complete:
            session.offer(*random_tree(rng, truth, len(session.token_ids), min(6, session.max_block_length)))
            linked.send_due()
            linked.settle()
        assert list(session.token_ids) == truth
        if session.has_stopped:
            num_whole += 1
            text = json.loads(tokenizer.decode(truth))
            assert isinstance(text, dict)
            assert grammar == json_object() or {"a"} <= set(text) <= {"a", "b"}
    assert num_whole > 3
