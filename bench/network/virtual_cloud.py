"""The cloud of virtual time: the real half of a session, on a target that answers at its pace."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bench.network.model_cache import Path, Thinking
from bench.network.profiles import Takes
from skydraft.core import PassTimes, parse_rule
from skydraft.decoding.cloud_session import CloudSession, SessionTerms, Step
from skydraft.engines.time_passes import BLOCK
from skydraft.errors import RemoteProtocolError
from skydraft.protocol import messages, packing, segments

LIMITS = messages.Limits(max_tokens=512, max_draft_tokens=64, max_in_flight=32)


class Pass(NamedTuple):
    """A forward pass. message: what it leads to; None for one that reads the prompt."""

    message: messages.CloudMessage | None
    seconds: float


class VirtualCloud:
    """One session.

    The target's choices are made with the text's own sampling and handed to the session as rows in which one token
    stands out, so that the session itself is greedy.

    Attributes:
        num_positions: that it computed, the prompt's not among them.
    """

    def __init__(self, minds: Thinking, pace: Takes) -> None:
        self.num_positions = 0
        self._minds = minds
        self._pace = pace
        self._session: CloudSession | None = None
        self._is_read = False

    def receive(self, message: messages.EdgeMessage) -> messages.CloudMessage | None:
        """Take in a message; returns what it answers at once."""
        match message:
            case messages.Open():
                return self._open(message)
            case messages.Offer() | messages.Generate():
                if self._session is None:
                    raise RemoteProtocolError("an offer or credit came before the session was opened")
                self._session.receive(message)
        return None

    def step(self) -> Pass | None:
        """What it does next; None where it has nothing to do."""
        session = self._session
        if session is None:
            return None
        if not self._is_read:
            self._is_read = True
            session.prefilled(self._rows([()])[0])
            return Pass(None, self._pace.pass_s(0, len(self._minds.opening.prompt_ids)))
        step = session.next_step()
        if step is None:
            return None
        num_tokens = len(step.token_ids)
        self.num_positions += num_tokens
        prepared = session.prepare(step, self._judge(session, step) if num_tokens else None)
        outcome = session.finish(prepared)
        return Pass(outcome.message, self._pace.pass_s(num_tokens) if num_tokens else 0.0)

    def _open(self, message: messages.Open) -> messages.Opened:
        mark = messages.VocabularyMark.of(self._minds.vocabulary)
        terms = SessionTerms(
            segments.from_wire(message.segments, message.vocabulary.num_tokens),
            message.sampling,
            parse_rule(message.rule),
            message.vocabulary.num_tokens,
            mark.num_tokens,
        )
        self._session = CloudSession(terms, LIMITS)
        key, digest = b"k" * 16, packing.log_digest([])
        return messages.Opened(
            messages.PROTOCOL_VERSION, 0, key, 0, digest, mark, LIMITS, pass_times=self._pass_times()
        )

    def _pass_times(self) -> PassTimes:
        step_s = self._pace.pass_s(1)
        return PassTimes(step_s, (self._pace.pass_s(BLOCK) - step_s) / (BLOCK - 1))

    def _judge(self, session: CloudSession, step: Step) -> np.ndarray[Any, Any]:
        """Rows after each token of a step."""
        paths: list[Path] = [tuple(session.token_ids[: session.kv_length])]
        for index, token_id in enumerate(step.token_ids):
            paths.append((*paths[step.shape.parents[index]], token_id))
        return self._rows(paths[1:])

    def _rows(self, paths: list[Path]) -> np.ndarray[Any, Any]:
        rows = np.zeros((len(paths), self._minds.row_size), np.float32)
        rows[np.arange(len(paths)), [self._minds.choice(path) for path in paths]] = 1.0
        return rows
