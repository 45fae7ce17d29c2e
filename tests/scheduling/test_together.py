"""Rows of many sessions are judged together: what each is told is what it would be told alone."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from msgspec.structs import replace

from skydraft.core import AcceptanceRule, Draft, Exact, MinProb, Rank, SamplingParams
from skydraft.decoding.cloud_session import CloudSession, SessionTerms
from skydraft.engines.base import Extension, PromptChunk
from skydraft.engines.emulated.table import Floats, TableEngine
from skydraft.protocol import messages, offers
from skydraft.scheduling import batcher as batching
from skydraft.scheduling.batcher import Batcher
from tests.linked import PROMPT, cloud_only, random_tree, table
from tests.spy import spy_on

MODEL = "table:vocab=8,seed=5,order=2"
LIMITS = messages.Limits(100_000, 64, 8)
WARM = SamplingParams(temperature=0.8, max_tokens=40)
SAMPLINGS = [
    replace(WARM, temperature=0.0),
    WARM,
    replace(WARM, top_k=3),
    replace(WARM, temperature=1.2, top_p=0.8),
]
RULES: list[AcceptanceRule] = [Exact(), Exact(), Exact(), Rank(2), MinProb(0.2)]


def mixed_sessions(rng: Random, count: int) -> list[CloudSession]:
    """Some know one token less than the target."""
    sessions = []
    for _ in range(count):
        sampling = replace(rng.choice(SAMPLINGS), seed=rng.getrandbits(64))
        terms = SessionTerms(PROMPT, sampling, rng.choice(RULES), 8, rng.choice([7, 8, 8]))
        sessions.append(CloudSession(terms, LIMITS))
    return sessions


def act(rng: Random, session: CloudSession) -> None:
    """A chain, a tree, credit or nothing."""
    length = len(session.token_ids)
    match rng.choice(["chain", "tree", "credit", "nothing"]):
        case "credit":
            session.receive(messages.Generate(length + 2))
        case "chain":
            draft = Draft.chain(length, tuple(rng.randrange(7) for _ in range(rng.randrange(1, 5))))
            session.receive(offers.to_wire(draft, 0, 8, session.terms.rule))
        case "tree":
            token_ids, shape = random_tree(rng, [], length, 6)
            draft = Draft(length, tuple(token_ids), shape)
            session.receive(offers.to_wire(draft, 0, 8, session.terms.rule))


def talk(seed: int) -> tuple[list[list[int]], list[list[messages.Verdict | messages.Tokens | messages.Fault]]]:
    """A crowd's texts and what the cloud said in each pass."""
    rng = Random(seed)
    sessions = mixed_sessions(rng, 12)
    batcher = Batcher(table(MODEL, num_slots=12))
    for session in sessions:
        batcher.admit(session, "", batcher.measure(PROMPT))
    said = []
    for _ in range(30):
        for session in sessions:
            if not session.is_complete:
                act(rng, session)
                batcher.wake(session)
        said.append([outcome.message for outcome in batcher.step().outcomes.values()])
    return [list(session.token_ids) for session in sessions], said


@pytest.mark.parametrize("seed", range(8))
def test_a_crowd_of_chains_trees_and_credit_hears_what_each_would_hear_alone(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = talk(seed)

    def refuse(wanted: object) -> list[list[int]]:
        raise MemoryError

    monkeypatch.setattr(batching, "choices_together", refuse)
    assert talk(seed) == together
    assert sum(map(len, together[0])) > 100


def test_the_choices_of_a_pass_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = spy_on(monkeypatch, batching, "choices_together", len)
    batcher = Batcher(table(MODEL))
    sessions = [
        CloudSession(SessionTerms(PROMPT, SamplingParams(temperature=0.8, seed=i, max_tokens=3), Exact(), 8, 8), LIMITS)
        for i in range(6)
    ]
    for session in sessions:
        session.receive(messages.Generate(3))
        batcher.admit(session, "", batcher.measure(PROMPT))
    while batcher.is_busy:
        batcher.step()
    assert [size for size in sizes if size] == [6, 6, 6]
    assert [list(session.token_ids) for session in sessions] == [
        cloud_only(table(MODEL), session.terms.sampling) for session in sessions
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_session_whose_logits_are_not_finite_falls_alone(temperature: float) -> None:
    class Broken(TableEngine):
        def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Floats]:
            all_logits = super().extend(extensions)
            return [
                np.full_like(rows, np.nan) if 5 in getattr(item, "token_ids", ()) else rows
                for item, rows in zip(extensions, all_logits, strict=True)
            ]

    spec = table(MODEL)
    batcher = Batcher(Broken(spec._table, 2, limits=spec.limits))
    terms = SessionTerms(PROMPT, SamplingParams(temperature=temperature, seed=3, max_tokens=12), Exact(), 8, 8)
    good, bad = (CloudSession(terms, LIMITS) for _ in range(2))
    truth = cloud_only(spec, terms.sampling)
    for session in (good, bad):
        batcher.admit(session, "", batcher.measure(PROMPT))
    batcher.step()
    for session, token_id in ((good, truth[0]), (bad, 5)):
        session.receive(offers.to_wire(Draft.chain(0, (token_id,)), 0, 8, Exact()))
        batcher.wake(session)
    outcomes = batcher.step().outcomes
    assert {each for each, outcome in outcomes.items() if isinstance(outcome.message, messages.Fault)} == {bad}
    assert list(good.token_ids) == truth[: len(good.token_ids)]
    assert good.token_ids
