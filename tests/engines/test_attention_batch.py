"""Sessions that share an engine write what each would write alone: with evictions, crops, trees and reused slots."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
import torch

from skydraft.core import Draft, Exact, Prompt, SamplingParams, TokenSegment
from skydraft.decoding.cloud_session import CloudSession, SessionTerms
from skydraft.engines.base import Extension, PromptChunk
from skydraft.engines.huggingface import kv_cache
from skydraft.engines.huggingface.slot_engine import SlotEngine
from skydraft.protocol import messages, offers
from skydraft.scheduling.batcher import Batcher
from tests.engines.operations import text_prompt
from tests.engines.test_omni import heard, log_mel
from tests.linked import cloud_only, random_tree
from tests.spy import spy_on

Start = Callable[..., SlotEngine]
KINDS = ["llama", "qwen2", pytest.param("target", marks=pytest.mark.text)]
LIMITS = messages.Limits(1000, 64, 8)


class Writing:
    """A text under way, by offers or on credit; offers are often what the target says."""

    def __init__(self, engine: SlotEngine, number: int, rng: Random) -> None:
        num_ids = engine.vocabulary.num_tokens
        prompt = Prompt((TokenSegment(tuple(rng.randrange(8, num_ids) for _ in range(rng.randint(1, 30)))),))
        self.sampling = SamplingParams(temperature=rng.choice([0.0, 0.9]), seed=number, max_tokens=24)
        self.session = CloudSession(SessionTerms(prompt, self.sampling, Exact(), num_ids, num_ids), LIMITS)
        self.truth = cloud_only(engine, self.sampling, prompt)
        self.drafts = bool(number % 3)

    def ask(self, rng: Random) -> None:
        session = self.session
        if not self.drafts:
            session.receive(messages.Generate(24))
        elif not session.is_complete and not session.num_waiting:
            start = len(session.token_ids)
            token_ids, shape = random_tree(rng, self.truth, start, rng.randint(1, 8))
            draft = Draft(start, tuple(token_ids), shape)
            session.receive(offers.to_wire(draft, 0, session.terms.num_edge_ids, Exact()))


@pytest.mark.parametrize("kind", ["llama", pytest.param("target", marks=pytest.mark.text)])
def test_sessions_that_share_slots_write_what_each_writes_alone(start: Start, kind: str) -> None:
    rng, engine = Random(7), start(kind, num_slots=3, fast_math=True)
    batcher = Batcher(engine, max_positions=40, prefill_tokens=9)
    texts = [Writing(engine, number, rng) for number in range(7)]
    for text in texts:
        batcher.admit(text.session, "", batcher.measure(text.session.terms.prompt))
    num_restored = 0
    for _ in range(1000):
        for text in texts:
            if rng.random() < 0.3:  # the others think about what to draft, and may lose their slots meanwhile
                text.ask(rng)
                batcher.wake(text.session)
        done = batcher.step()
        num_restored += done.num_restored
        assert not any(isinstance(outcome.message, messages.Fault) for outcome in done.outcomes.values())
        if all(text.session.is_complete for text in texts):
            break
    assert [list(text.session.token_ids) for text in texts] == [text.truth for text in texts]
    assert num_restored > 7


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_was_evicted_has_the_same_logits_afterwards(start: Start, kind: str) -> None:
    engine = start(kind, num_slots=3)
    ids = list(range(8, 48))
    slot = engine.open(text_prompt(*ids[:20])).slot
    (before,) = engine.extend([Extension.chain(slot, ids[20:])])
    engine.close(slot)
    others = [engine.open(text_prompt(*range(10 + i, 40))).slot for i in range(2)]
    slot = engine.reserve(text_prompt(*ids[:20]))
    for num_tokens in (3, 10, 7):
        engine.extend(
            [Extension.chain(others[0], [9]), PromptChunk(slot, num_tokens), Extension.chain(others[1], [9, 10])]
        )
    engine.extend([Extension.chain(slot, ids[20:30], num_rows=0), Extension.chain(others[1], [11])])
    (after,) = engine.extend([Extension.chain(slot, ids[30:])])
    assert float((after - before[10:]).abs().max()) < 1e-4


def test_a_wide_extension_has_a_batch_of_its_own(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start("llama", num_slots=4, fast_math=True)
    monkeypatch.setattr(kv_cache, "WIDE", 4)
    slots = [engine.open(text_prompt(8, 9)).slot for _ in range(3)]
    shapes = spy_on(
        monkeypatch,
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda query, *_, **__: (query.shape[0], query.shape[2]),
    )
    long = list(range(10, 22))
    rows = engine.extend(
        [Extension.chain(slots[0], [8]), Extension.chain(slots[1], long), Extension.chain(slots[2], [8])]
    )
    num_groups = shapes[0][1]
    assert sorted(set(shapes)) == [(1, 12 * num_groups), (3, num_groups)]
    alone = start("llama")
    (expected,) = alone.extend([Extension.chain(alone.open(text_prompt(8, 9)).slot, long)])
    np.testing.assert_allclose(rows[1], expected, atol=1e-5)


def test_sound_is_read_in_chunks_beside_others(start: Start) -> None:
    engine = start("omni", num_slots=2)
    prompt = heard(log_mel(40))
    expected = engine.open(prompt)
    engine.close(expected.slot)
    other = engine.open(text_prompt(8)).slot
    slot, num_left = engine.reserve(prompt), engine.measure(prompt)
    while num_left:
        _, rows = engine.extend([Extension.chain(other, [9]), PromptChunk(slot, min(3, num_left))])
        num_left -= min(3, num_left)
    np.testing.assert_allclose(rows[0], expected.logits, atol=1e-5)
    assert not engine._unread
