"""A small model with the pace of a large one: emulates a phone or a data centre with real texts and real sockets.

`paced:step_ms=30,node_ms=0.12,prompt_ms=0.1:MODEL` is MODEL, any other model name, whose forward passes take the time
that is stated, computing included.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from skydraft.core import Prompt, TokenSegment
from skydraft.engines.base import (
    Array,
    ChunkedEngine,
    Engine,
    Extension,
    KvPiece,
    Prefilled,
    PrefixReuse,
    PromptChunk,
    Slot,
    SwappedSlot,
)
from skydraft.engines.name_settings import NameSettings

PREFIX = "paced:"
WHAT = "a paced model (paced:step_ms=30,node_ms=0.12,prompt_ms=0.1:MODEL)"
MAX_MS = 60_000

# Systems wake a sleeper late, the more so after a long sleep: the last of a wait is slept in short pieces. On Linux
# passes then end 0.1 ms late in the median and the core is free for the other side of the emulation meanwhile.
FINE_S = 0.001
PIECE_S = 0.0001


class Pace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long passes take.

    step_ms: a forward pass with one token.
    node_ms: each further token of a pass, over all its extensions.
    prompt_ms: each token of a prompt that the pass reads.
    """

    step_ms: float
    node_ms: float = 0.0
    prompt_ms: float = 0.0

    def pass_s(self, num_tokens: int, num_prompt_tokens: int = 0) -> float:
        """Of a pass over so many tokens of texts, and of prompts."""
        return (self.step_ms + self.node_ms * max(0, num_tokens - 1) + self.prompt_ms * num_prompt_tokens) / 1000

    def __str__(self) -> str:
        return f"step_ms={self.step_ms:g},node_ms={self.node_ms:g},prompt_ms={self.prompt_ms:g}"


@dataclass
class PaceCounts:
    """What became of the pace since the engine was made.

    num_passes: forward passes, those that read prompts included.
    overruns: of these, how many computed longer than their pace: times measured with them are not the emulated ones.
    total_late_s: by how much passes ended after their time, for whatever reason, a busy machine's among them.
    """

    num_passes: int = 0
    overruns: int = 0
    total_late_s: float = 0.0


class PacedEngine:
    """Any engine, its passes stretched to a pace; its errors are those of the engine within, and take no time.

    A pass returns when its time is over, however much of it was computing. What is no pass is
    free. Made by `pace_engine`, which knows those that read prompts in chunks.

    Args:
        clock, sleep: in seconds; made up in tests.
    """

    def __init__(
        self,
        engine: Engine,
        pace: Pace,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = f"{PREFIX}{pace}:{engine.name}"
        self.vocabulary = engine.vocabulary
        self.limits = engine.limits
        self.row_promise = engine.row_promise
        self.pace = pace
        self.counts = PaceCounts()
        self._engine = engine
        self._clock = clock
        self._sleep = sleep

    def open(self, prompt: Prompt) -> Prefilled:
        start_s = self._clock()
        prefilled = self._engine.open(prompt)
        self._finish_pass(start_s, self.pace.pass_s(0, self._prompt_length(prompt)))
        return prefilled

    def extend(self, extensions: Sequence[Extension]) -> list[Array]:
        start_s = self._clock()
        all_logits = self._engine.extend(extensions)
        self._finish_extend(start_s, extensions)
        return all_logits

    def crop(self, slot: Slot, keep_length: int) -> None:
        self._engine.crop(slot, keep_length)

    def keep_path(self, slot: Slot, start: int, path: Sequence[int], rest: Sequence[int] = ()) -> None:
        self._engine.keep_path(slot, start, path, rest)

    def close(self, slot: Slot) -> None:
        self._engine.close(slot)

    def report(self) -> dict[str, object]:
        """Whether the pace was kept, so that a bench can refuse times that were measured when it was not."""
        return {"pace": dataclasses.asdict(self.counts)}

    def _prompt_length(self, prompt: Prompt) -> int:
        """Tokens of the prompt, and frames of its tensors: how many tokens an engine makes of these it does not say."""
        return sum(
            len(segment.token_ids) if isinstance(segment, TokenSegment) else segment.shape[-1]
            for segment in prompt.segments
        )

    def _finish_extend(self, start_s: float, items: Sequence[Extension | PromptChunk]) -> None:
        if items:
            num_tokens = sum(len(item.token_ids) for item in items if isinstance(item, Extension))
            num_prompt_tokens = sum(item.num_tokens for item in items if isinstance(item, PromptChunk))
            self._finish_pass(start_s, self.pace.pass_s(num_tokens, num_prompt_tokens))

    def _finish_pass(self, start_s: float, pass_s: float) -> None:
        due_s = start_s + pass_s
        self.counts.num_passes += 1
        self.counts.overruns += self._clock() > due_s
        self.counts.total_late_s += self._wait_until(due_s)

    def _wait_until(self, due_s: float) -> float:
        """Returns: how many seconds late it became."""
        while (left_s := due_s - self._clock()) > 0:
            self._sleep(left_s - FINE_S if left_s > 2 * FINE_S else min(left_s, PIECE_S))
        return -left_s


class PacedChunkedEngine(PacedEngine):
    """The same for an engine that reads prompts in chunks. What `reserve` computes takes the time that it takes."""

    _engine: ChunkedEngine

    @property
    def prefix_reuse(self) -> PrefixReuse:
        return self._engine.prefix_reuse

    def measure(self, prompt: Prompt) -> int:
        return self._engine.measure(prompt)

    def prompt_ids(self, prompt: Prompt) -> Sequence[int]:
        return self._engine.prompt_ids(prompt)

    def reserve(self, prompt: Prompt, beginning: Sequence[KvPiece] = ()) -> Slot:
        return self._engine.reserve(prompt, beginning)

    def copy_out(self, slot: Slot, start: int, end: int) -> KvPiece:
        return self._engine.copy_out(slot, start, end)

    def swap_out(self, slot: Slot) -> SwappedSlot:
        return self._engine.swap_out(slot)

    def swap_in(self, swapped: SwappedSlot) -> Slot:
        return self._engine.swap_in(swapped)

    def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Array]:
        start_s = self._clock()
        all_logits = self._engine.extend(extensions)
        self._finish_extend(start_s, extensions)
        return all_logits

    def _prompt_length(self, prompt: Prompt) -> int:
        return self._engine.measure(prompt)


def pace_engine(engine: Engine, pace: Pace) -> PacedEngine:
    """Give an engine a pace, and let it do all that it could."""
    return PacedChunkedEngine(engine, pace) if isinstance(engine, ChunkedEngine) else PacedEngine(engine, pace)


def split_pace(model: str) -> tuple[Pace | None, str]:
    """Take `paced:...:MODEL` apart; a name without a pace is its own MODEL.

    Returns:
        The pace, None where the name states none, and MODEL.
    Raises:
        ModelLoadError: a setting is unknown, missing or wrong, or there is no model in the name.
    """
    if not model.startswith(PREFIX):
        return None, model
    settings, _, inner = model.removeprefix(PREFIX).partition(":")
    text = NameSettings(model, WHAT)
    pace = text.read(settings, Pace)
    for name in Pace.__struct_fields__:
        value = getattr(pace, name)
        text.require(0 <= value <= MAX_MS, name, value, f"0 to {MAX_MS}")
    text.require(pace.step_ms > 0, "step_ms", pace.step_ms, "above 0")
    is_model = bool(inner) and not inner.startswith(PREFIX)
    text.require(is_model, "MODEL", repr(inner), "a model without a pace of its own")
    return pace, inner
