import math
from collections.abc import Sequence

import numpy as np
import pytest

from skydraft.core import AcceptanceRule, Draft, Exact, MinProb, Rank, Rejection, SamplingParams
from skydraft.engines.base import EngineLimits
from skydraft.engines.emulated.words import word_vocabulary
from skydraft.engines.external.text_engine import Floats, TextEngine, TextQuestion
from skydraft.errors import EngineError
from skydraft.sampling.acceptance import judge
from skydraft.sampling.lattice import draw, to_lattice
from skydraft.scheduling.slot_lending import open_slot
from tests.engines.operations import text_prompt
from tests.engines.test_text_engine import MadeUpReader
from tests.linked import table

GREEDY = SamplingParams()
TOP_K = SamplingParams(temperature=0.8, top_k=5, top_p=0.9, seed=7)
FREE = SamplingParams(temperature=0.8, top_p=0.9)
VOCAB_SIZE = 200


@pytest.mark.parametrize(
    ("sampling", "rule", "expected"),
    [
        (GREEDY, Exact(), 1),
        (TOP_K, Exact(), 5),
        (FREE, Exact(), None),
        (GREEDY, Rejection(), 1),
        (TOP_K, Rejection(), 5),
        (FREE, Rejection(), None),
        (GREEDY, Rank(20), 20),
        (TOP_K, Rank(3), 5),
        (FREE, Rank(20), None),
        (GREEDY, MinProb(0.1), None),
        (TOP_K, MinProb(0.1), None),
    ],
)
def test_as_many_logits_are_needed_as_decide(
    sampling: SamplingParams, rule: AcceptanceRule, expected: int | None
) -> None:
    assert rule.num_logits(sampling) == expected


@pytest.mark.parametrize("sampling", [GREEDY, TOP_K])
@pytest.mark.parametrize("rule", [Exact(), Rank(4), Rejection(top_k=6)])
def test_rows_cut_to_what_is_needed_and_shifted_are_judged_as_whole_ones(
    sampling: SamplingParams, rule: AcceptanceRule
) -> None:
    num_logits = rule.num_logits(sampling)
    assert num_logits is not None
    random = np.random.default_rng(1)
    paths = set()
    for _ in range(30):
        rows = random.normal(scale=3, size=(5, VOCAB_SIZE)).astype(np.float32)
        draft = drafted(rows, sampling, rule, random)
        judgement = judge(draft, rows, sampling, rule)
        paths.add(judgement.path)
        assert judge(draft, log_probs_of_the_largest(rows, num_logits), sampling, rule) == judgement
    assert len(paths) > 2


def drafted(rows: np.ndarray, sampling: SamplingParams, rule: AcceptanceRule, random: np.random.Generator) -> Draft:
    """Four tokens by a model that is a little off."""
    own = rows[:4] + random.normal(scale=0.5, size=(4, VOCAB_SIZE))
    if rule.draft_lattice is None:
        return Draft.chain(0, tuple(int(token_id) for token_id in own.argmax(axis=1)))
    distributions = tuple(to_lattice(row, sampling, rule.draft_lattice) for row in own)
    token_ids = tuple(draw(item, sampling.seed, position) for position, item in enumerate(distributions))
    return Draft.chain(0, token_ids, distributions=distributions)


def log_probs_of_the_largest(rows: np.ndarray, count: int) -> np.ndarray:
    edge = np.sort(rows, axis=1)[:, -count][:, None]
    log_probs = rows - np.log(np.exp(rows.astype(np.float64)).sum(axis=1, keepdims=True))
    return np.where(rows >= edge, log_probs, -math.inf)


class _LastIds(MadeUpReader):
    """Its largest logits are those of the last ids."""

    def read(self, questions: Sequence[TextQuestion]) -> list[Floats]:
        row = np.where(np.arange(24) < 12, -np.inf, 0.0).astype(np.float32)
        return [np.tile(row, (question.num_rows, 1)) for question in questions]


def test_a_narrow_engine_is_told_how_many_logits_matter_and_others_open_as_ever() -> None:
    reader = MadeUpReader(max_logits=8)
    engine = TextEngine(reader, word_vocabulary(24), EngineLimits(num_slots=1, max_length=64))
    open_slot(engine, text_prompt(1), TOP_K, Rank(7))
    assert [question.num_logits for question in reader.asked[0]] == [7]
    with pytest.raises(EngineError, match="needs 7 more"):  # of the first ids none is told
        open_slot(TextEngine(_LastIds(8), engine.vocabulary, engine.limits), text_prompt(1), TOP_K, Rank(7), num_ids=9)
    with pytest.raises(EngineError, match="whole vocabulary"):
        open_slot(engine, text_prompt(1), FREE, Exact())
    assert open_slot(table("table:vocab=24"), text_prompt(1), FREE, Exact()).slot == 0
