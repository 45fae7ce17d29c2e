"""What a text that drafts has of the draft engine: a slot, which it may lose, and passes that it asks for."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from skydraft.engines.base import Array, Engine, Extension, PromptChunk, Slot

_Result = TypeVar("_Result")

# Yields what its slot is to read next and is sent the logits of that, as often as it takes; returns what it made of
# them. Whoever runs it has the engine meanwhile, so that it may crop its slot and keep paths too.
Passes: TypeAlias = Generator[Extension | PromptChunk, Array, _Result]


@dataclass(eq=False)
class DraftLease:
    """A text's slot in a draft engine.

    slot: None: it has none, or not any more.
    start: the position of the text that is the slot's first generated token. Those before it were read with the prompt;
        below 0: so many tokens of the prompt were read as the generated tokens of an earlier text.
    num_filled: tokens that the slot had to read before the text could go on. num_read: since then.
    """

    slot: Slot | None = None
    start: int = 0
    num_filled: int = 0
    num_read: int = 0

    @property
    def is_held(self) -> bool:
        return self.slot is not None

    @property
    def open_slot(self) -> Slot:
        assert self.slot is not None, "open the slot first"
        return self.slot

    def crop(self, engine: Engine, length: int) -> None:
        """Forget the text from this position on."""
        engine.crop(self.open_slot, length - self.start)

    def keep_path(self, engine: Engine, start: int, path: Sequence[int], rest: Sequence[int]) -> None:
        """As Engine.keep_path. start: a position of the text."""
        engine.keep_path(self.open_slot, start - self.start, path, rest)


def run_alone(engine: Engine, passes: Passes[_Result]) -> _Result:
    """Run the passes of one text in this thread, with nothing else in them."""
    logits: Array = None
    try:
        while True:
            item = passes.send(logits)
            assert isinstance(item, Extension), "prompts are read by the pool or by `Engine.open`"
            (logits,) = engine.extend([item])
    except StopIteration as end:
        result: _Result = end.value
        return result
