"""Devices that repeat what was recorded: they cost nothing, so that what is measured is the cloud alone.

Under `exact` a text does not depend on who drafts, so what a device drafts at each position can be written down once
and offered again and again, against the same cloud or another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from skydraft.cloud.metrics import Metrics
from skydraft.cloud.session_registry import SessionRegistry
from skydraft.config import CloudSettings
from skydraft.core import Draft, Exact, Prompt, SamplingParams
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.base import Engine, Extension
from skydraft.protocol import codec, messages, offers, packing
from skydraft.sampling.choice import target_choices


class Script(NamedTuple):
    """A text, and what a device offers on its way. offers: by the length of the text before them."""

    prompt: Prompt
    sampling: SamplingParams
    token_ids: list[int]
    offers: dict[int, Draft]


def write_alone(engine: Engine, prompt: Prompt, sampling: SamplingParams) -> list[int]:
    """What a target writes by itself."""
    slot, logits = engine.open(prompt)
    token_ids: list[int] = []
    while not sampling.is_end(token_ids):
        token_ids += target_choices(logits[None, :], sampling, [len(token_ids)])
        logits = engine.extend([Extension.chain(slot, token_ids[-1:])])[0][-1]
    engine.close(slot)
    return token_ids


@dataclass
class Waits(Metrics):
    """Metrics that keep what they are told."""

    queue_s: list[float] = field(default_factory=list)
    num_positions: int = 0
    num_emitted: int = 0
    num_passes: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def passed(self, num_sessions: int, num_positions: int, num_emitted: int, forward_s: float) -> None:
        self.num_positions += num_positions
        self.num_emitted += num_emitted
        self.num_passes += 1

    def waited(self, queue_s: float) -> None:
        self.queue_s.append(queue_s)

    def forget(self) -> None:
        """What was until now does not count."""
        self.queue_s.clear()
        self.num_positions = self.num_emitted = self.num_passes = 0


class Tally(NamedTuple):
    """What was done in a time. num_rounds: verdicts and pieces of text that were sent."""

    seconds: float
    num_rounds: int
    num_tokens: int
    num_positions: int
    num_passes: int


class Result(NamedTuple):
    """What a run took. full: until the first text was complete: from then on the cloud empties."""

    full: Tally
    whole: Tally
    queue_s: list[float]


class Replay:
    """One cloud and as many devices as there are scripts, each over a connection of its own, none ever thinking.

    Args:
        drafts: whether devices offer what is in their scripts; all give credit for the whole text.
        clock: in seconds.
    """

    def __init__(
        self,
        engine: Engine,
        settings: CloudSettings,
        scripts: Sequence[Script],
        *,
        drafts: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._metrics = Waits()
        self._clock = clock
        self._registry = SessionRegistry(engine, settings, self._metrics)
        self._vocabulary = engine.vocabulary
        self._scripts = scripts
        self._drafts = drafts
        self._lengths = [0] * len(scripts)
        self._num_rounds = 0
        self._began_s = 0.0

    def run(self) -> Result:
        """Open all sessions and let them read their prompts, which does not count; then write all texts."""
        for number, script in enumerate(self._scripts):
            self._say(number, EdgeSession(self._vocabulary, script.prompt, script.sampling, Exact()).open())
        while self._registry.is_busy:
            self._registry.step()
        self._metrics.forget()
        self._began_s = self._clock()
        for number in range(len(self._scripts)):
            self._ask(number)
        while self._registry.is_busy and not self._has_complete():
            self._step()
        full = self._tally()
        while self._registry.is_busy:
            self._step()
        whole = self._tally()
        assert whole.num_tokens == sum(len(script.token_ids) for script in self._scripts), "not the recorded texts"
        return Result(full, whole, self._metrics.queue_s)

    def _step(self) -> None:
        replies = self._registry.step()
        self._num_rounds += len(replies)
        for number, message in replies:
            self._hear(number, codec.encode(message))

    def _has_complete(self) -> bool:
        return any(length == len(script.token_ids) for length, script in zip(self._lengths, self._scripts, strict=True))

    def _tally(self) -> Tally:
        seconds, metrics = self._clock() - self._began_s, self._metrics
        return Tally(seconds, self._num_rounds, sum(self._lengths), metrics.num_positions, metrics.num_passes)

    def _say(self, number: int, message: messages.EdgeMessage) -> None:
        for _, reply in self._registry.receive(number, codec.decode_edge_message(codec.encode(message))):
            assert not isinstance(reply, messages.Fault), reply.sentence

    def _ask(self, number: int) -> None:
        script, start = self._scripts[number], self._lengths[number]
        if not start:
            self._say(number, messages.Generate(len(script.token_ids)))
        if self._drafts and start in script.offers:
            self._say(number, offers.to_wire(script.offers[start], 0, self._vocabulary.num_tokens, Exact()))

    def _hear(self, number: int, data: bytes) -> None:
        message, script = codec.decode_cloud_message(data), self._scripts[number]
        match message:
            case messages.Verdict():
                self._lengths[number] = message.length
            case messages.Tokens():
                num_ids = self._vocabulary.num_tokens
                token_ids = packing.unpack_ids(message.packed_ids, packing.id_bits(num_ids), num_ids)
                self._lengths[number] = message.start + len(token_ids)
                assert list(token_ids) == script.token_ids[message.start : self._lengths[number]]
            case _:
                raise AssertionError(f"the cloud said {message}")
        self._ask(number)
