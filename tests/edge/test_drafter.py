from __future__ import annotations

from random import Random

from skydraft.core import Exact, Rejection, SamplingParams
from skydraft.edge.drafter import LoneDrafter
from tests.linked import PROMPT, cloud_only, table

MODEL = "table:vocab=8,seed=5,order=2,end=7"


def opened(sampling: SamplingParams, rule: Exact | Rejection = Exact()) -> LoneDrafter:
    drafter = LoneDrafter(table(MODEL, num_slots=1), sampling, rule)
    drafter.open(PROMPT)
    return drafter


def test_drafts_are_the_draft_models_own_choices_with_the_shared_noise() -> None:
    sampling = SamplingParams(temperature=0.9, seed=4, max_tokens=30)
    assert list(opened(sampling).draft([], 30, 8).token_ids) == cloud_only(table(MODEL), sampling)


def test_drafting_follows_whatever_the_text_became() -> None:
    sampling = SamplingParams(temperature=0.9, seed=4, max_tokens=30)
    drafter, rng, text = opened(sampling), Random(1), list[int]()
    for _ in range(60):
        text = text[: rng.randint(0, len(text))] + [rng.randrange(7) for _ in range(rng.randint(0, 3))]
        text = text[:25]
        fresh = opened(sampling)
        assert drafter.draft(text, 4, 8)[:3] == fresh.draft(text, 4, 8)[:3]  # but for what it had to read
        fresh.close()


def test_a_draft_ends_where_the_text_ends() -> None:
    sampling = SamplingParams(temperature=2.0, seed=1, max_tokens=50, end_ids=(7,))
    block = opened(sampling).draft([], 50, 8)
    assert block.token_ids[-1] == 7
    assert 7 not in block.token_ids[:-1]
    assert len(block.signals) == len(block.token_ids)


def test_ids_that_the_target_lacks_are_not_drafted() -> None:
    sampling = SamplingParams(temperature=5.0, seed=2, max_tokens=60)
    assert set(opened(sampling).draft([], 60, 3).token_ids) == {0, 1, 2}


def test_rejection_draws_from_the_distributions_that_it_reports() -> None:
    sampling = SamplingParams(temperature=1.0, seed=2, max_tokens=20)
    block = opened(sampling, Rejection(4, 16)).draft([], 20, 8)
    assert block.distributions is not None
    for token_id, distribution in zip(block.token_ids, block.distributions, strict=True):
        assert sum(distribution.weights) == 16
        assert distribution.weights[distribution.token_ids.index(token_id)] > 0


def test_a_closed_drafter_gives_its_slot_back() -> None:
    engine = table(MODEL, num_slots=1)
    for _ in range(3):
        drafter = LoneDrafter(engine, SamplingParams(), Exact())
        drafter.open(PROMPT)
        drafter.close()
        drafter.close()
