"""What the two models think, computed once for each context: virtual time asks the same in every mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from bench.network.profiles import TEXT
from skydraft.core import Prompt, SamplingParams, TokenSegment
from skydraft.engines.base import Array, Engine, Extension
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.sampling.choice import target_choices
from skydraft.sampling.guesses import Guesses, best_guesses
from skydraft.text.checkpoint import Role
from skydraft.text.vocabulary import Vocabulary

NUM_GUESSES = 6

Path = tuple[int, ...]  # generated tokens


class Opening(NamedTuple):
    """A text's beginning. sampling: how it goes on."""

    prompt_ids: tuple[int, ...]
    sampling: SamplingParams


class Reader:
    """One model on one prompt; keeps its place, so that a context near the last one costs little."""

    def __init__(self, engine: Engine, prompt_ids: Sequence[int]) -> None:
        self._engine = engine
        self._slot, self._prompt_row = engine.open(Prompt((TokenSegment(tuple(prompt_ids)),)))
        self._held: Path = ()

    def row(self, path: Path) -> Array:
        """The logits [vocab_size] after prompt and path."""
        if not path:
            return self._prompt_row
        num_kept = 0
        while num_kept < min(len(self._held), len(path) - 1) and self._held[num_kept] == path[num_kept]:
            num_kept += 1
        if num_kept < len(self._held):
            self._engine.crop(self._slot, num_kept)
        (rows,) = self._engine.extend([Extension.chain(self._slot, path[num_kept:])])
        self._held = path
        return rows[-1]

    def close(self) -> None:
        self._engine.close(self._slot)


class Thinking(Protocol):
    """What a target and a draft say of one text.

    row_size: ids from here on are in no text and in no guess.
    """

    @property
    def opening(self) -> Opening: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def row_size(self) -> int: ...

    def choice(self, path: Path) -> int:
        """The target's, after a path."""

    def guesses(self, path: Path, count: int) -> Guesses:
        """The draft's, of what follows a path; count is at most NUM_GUESSES."""

    def text(self) -> Path:
        """What the target writes alone."""


class Minds:
    """A target and a draft of one text."""

    def __init__(self, target: Engine, draft: Engine, opening: Opening) -> None:
        self.opening = opening
        self.vocabulary = target.vocabulary
        self.row_size = target.vocabulary.num_tokens
        self._target = Reader(target, opening.prompt_ids)
        self._draft = Reader(draft, opening.prompt_ids)
        self._choices: dict[Path, int] = {}
        self._guesses: dict[Path, Guesses] = {}

    def choice(self, path: Path) -> int:
        """The target's, after a path."""
        if path not in self._choices:
            row = self._target.row(path)[None, :]
            self._choices[path] = target_choices(row, self.opening.sampling, [len(path)])[0]
        return self._choices[path]

    def guesses(self, path: Path, count: int) -> Guesses:
        """The draft's, of what follows a path; count is at most NUM_GUESSES."""
        if path not in self._guesses:
            row = self._draft.row(path)[None, :]
            self._guesses[path] = best_guesses(row, self.opening.sampling, [len(path)], NUM_GUESSES)[0]
        known = self._guesses[path]
        return Guesses(known.token_ids[:count], known.scores[:count])

    def text(self) -> Path:
        """What the target writes alone."""
        path: Path = ()
        while not self.opening.sampling.is_end(path):
            path = (*path, self.choice(path))
        return path

    def close(self) -> None:
        self._target.close()
        self._draft.close()


class Library:
    """The text pair's models, loaded when they are needed."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}

    def minds(self, draft: str, opening: Opening) -> Minds:
        return Minds(self._engine("target", "target"), self._engine(f"draft-{draft}", "draft"), opening)

    def _engine(self, folder: str, role: Role) -> Engine:
        if folder not in self._engines:
            settings = EngineSettings(num_threads=1)
            self._engines[folder] = load_engine(str(TEXT / folder), role, settings)
        return self._engines[folder]
