"""Conversations over a batcher: each turn's prompt is the one before, its answer, and a new question."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from skydraft.core import Draft, Exact, Prompt, SamplingParams, TokenSegment, TreeShape
from skydraft.decoding.cloud_session import CloudSession, SessionTerms
from skydraft.engines.base import Engine
from skydraft.protocol import messages, offers
from skydraft.scheduling.batcher import Batcher
from tests.linked import cloud_only

LIMITS = messages.Limits(4096, 64, 8)
TURNS = 4


class Conversation:
    """One that goes on; its answers are drafted, right and wrong, in chains and trees, and written on credit.

    Args:
        system: how it begins.
        end: tokens behind each message, as chat formats have them.
        alone: an engine that has no cache, for what the cloud writes alone.
    """

    def __init__(
        self,
        batcher: Batcher,
        alone: Engine,
        system: list[int],
        seed: int,
        answer: int = 20,
        end: Sequence[int] = (),
    ) -> None:
        self.batcher = batcher
        self.alone = alone
        self.prompt_ids = [*system, *end]
        self.prompt_lengths: list[int] = []
        self.end = end
        self.num_ids = alone.vocabulary.num_tokens
        self.answer = answer
        self.random = Random(seed)
        self.seed = seed
        self.num_reused = 0

    def turn(self, question: int = 12, scope: str = "") -> None:
        """One more question and its answer, compared with the cloud's own."""
        self.prompt_ids += [self.random.randrange(8, self.num_ids) for _ in range(question)]
        self.prompt_ids += self.end
        self.prompt_lengths.append(len(self.prompt_ids))
        prompt = Prompt((TokenSegment(tuple(self.prompt_ids)),))
        sampling = SamplingParams(temperature=0.8, seed=self.seed, max_tokens=self.answer)
        truth = cloud_only(self.alone, sampling, prompt)
        session = CloudSession(SessionTerms(prompt, sampling, Exact(), self.num_ids, self.num_ids), LIMITS)
        self.batcher.admit(session, scope, self.batcher.measure(prompt), scope)
        while not session.is_complete:
            self._ask(session, truth)
            while self.batcher.is_busy:
                done = self.batcher.step()
                self.num_reused += sum(done.reused.values())
                for outcome in done.outcomes.values():
                    assert not isinstance(outcome.message, messages.Fault), outcome.message
        self.batcher.release(session)
        assert list(session.token_ids) == truth
        self.prompt_ids += [*truth, *self.end]

    def _ask(self, session: CloudSession, truth: list[int]) -> None:
        start = len(session.token_ids)
        if self.random.random() < 0.3:
            session.receive(messages.Generate(start + self.random.randrange(1, 4)))
        else:
            wrong = [(token_id + 1) % self.num_ids for token_id in truth[start : start + 3]]
            right = truth[start : start + self.random.randrange(1, 5)]
            shape = TreeShape((*range(len(right)), *([0] if wrong else [])))
            session.receive(offers.to_wire(Draft(start, (*right, *wrong[:1]), shape), 0, self.num_ids, Exact()))
        self.batcher.wake(session)
