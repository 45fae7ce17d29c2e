"""Engines that compute whole texts: a slot is a log of token ids, and the program behind it has a prefix cache.

Cropping a log and keeping a path of a tree are edits of a list. A tree is sent as texts: each of its branches with what
stands before it, which the prefix cache has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from skydraft.core import Prompt
from skydraft.engines.base import EngineLimits, Extension, Prefilled, RowPromise, Slot
from skydraft.engines.prompt_checks import only_text_ids
from skydraft.engines.slots import Placement, SlotBook
from skydraft.errors import EngineError, PromptRejected
from skydraft.text.vocabulary import Vocabulary

Floats = npt.NDArray[np.float32]

UNKNOWN_ROWS = RowPromise(False, "another program computes them")
TIE_MARGIN = 16  # logits to ask for beyond those that matter: where they tie at the edge, the lowest ids count


class TextQuestion(NamedTuple):
    """A question about a text.

    token_ids: the whole text, prompt included.
    num_rows: of how many of its last tokens the logits are wanted, 1 or more.
    num_logits: how many of the largest logits of a row matter; None: all.
    """

    token_ids: Sequence[int]
    num_rows: int
    num_logits: int | None

    def num_asked(self, vocabulary_size: int) -> int:
        """How many of the largest logits of a row to ask for."""
        most = vocabulary_size if self.num_logits is None else self.num_logits + TIE_MARGIN
        return min(most, vocabulary_size)


class TextReader(Protocol):
    """The program that computes the logits."""

    @property
    def max_logits(self) -> int | None:
        """The largest num_logits that it can answer; None: there is no largest."""

    def read(self, questions: Sequence[TextQuestion]) -> list[Floats]:
        """Answer all questions together.

        Returns:
            For each float32 [num_rows, vocab_size], the last row after the text's last token; -inf where a logit is
            not among those that matter.
        Raises:
            EngineError: it cannot.
        """


class _Branch(NamedTuple):
    """Nodes of a tree that one text asks about.

    path: from the tree's root to the last of them.
    num_rows: how many of its last nodes they are.
    """

    path: tuple[int, ...]
    num_rows: int


class _LogitsNeeded(NamedTuple):
    """What of a slot's rows matters: the num_logits largest of the first num_ids; None: all."""

    num_logits: int | None
    num_ids: int


class TextEngine:
    """A NarrowEngine on a TextReader; its errors are those of NarrowEngine."""

    def __init__(
        self,
        reader: TextReader,
        vocabulary: Vocabulary,
        limits: EngineLimits,
        row_promise: RowPromise = UNKNOWN_ROWS,
    ) -> None:
        self.name = vocabulary.name
        self.vocabulary = vocabulary
        self.limits = limits
        self.row_promise = row_promise
        self._reader = reader
        self._book = SlotBook(limits)
        self._logs: dict[Slot, list[int]] = {}  # by index, as SlotBook counts: the nodes of a tree as they were given
        self._needed: dict[Slot, _LogitsNeeded] = {}

    def open(self, prompt: Prompt) -> Prefilled:
        return self.open_narrow(prompt, None)

    def open_narrow(self, prompt: Prompt, num_logits: int | None, num_ids: int | None = None) -> Prefilled:
        self._require_answerable(num_logits)
        token_ids = only_text_ids(prompt, self.vocabulary)
        slot = self._book.allocate(len(token_ids))
        try:
            needed = _LogitsNeeded(num_logits, self.vocabulary.size if num_ids is None else num_ids)
            (rows,) = self._read([TextQuestion(token_ids, 1, num_logits)], [needed])
            if not np.isfinite(rows[0].max()):
                raise PromptRejected(f"{self.name} gives no finite logits after this prompt")
        except BaseException:
            self._book.release(slot)
            raise
        self._logs[slot] = token_ids
        self._needed[slot] = needed
        return Prefilled(slot, rows[0])

    def extend(self, extensions: Sequence[Extension]) -> list[Floats]:
        placements = self._book.place(extensions, self.vocabulary.size)
        branches = [_branches(placement) for placement in placements]
        asked = [
            (placement, branch) for placement, of_slot in zip(placements, branches, strict=True) for branch in of_slot
        ]
        questions = [self._question(placement, branch) for placement, branch in asked]
        answers = iter(self._read(questions, [self._needed[placement.slot] for placement, _ in asked]))
        self._book.commit(placements)
        for placement in placements:
            self._logs[placement.slot][placement.start :] = placement.token_ids
        return [
            self._gather(placement, of_slot, answers) for placement, of_slot in zip(placements, branches, strict=True)
        ]

    def crop(self, slot: Slot, keep_length: int) -> None:
        length = self._book.crop(slot, keep_length)
        del self._logs[slot][length:]

    def keep_path(self, slot: Slot, start: int, path: Sequence[int], rest: Sequence[int] = ()) -> None:
        first = self._book.tree_start(slot)
        log = self._logs[slot]
        log[first:] = [log[index] for index in self._book.keep_path(slot, start, path, rest)]

    def close(self, slot: Slot) -> None:
        self._book.release(slot)
        del self._logs[slot], self._needed[slot]

    def _require_answerable(self, num_logits: int | None) -> None:
        most = self._reader.max_logits
        if most is None or (num_logits or self.vocabulary.size) <= most:
            return
        wanted = "the logits of the whole vocabulary" if num_logits is None else f"the {num_logits} largest logits"
        raise EngineError(
            f"what runs {self.name} gives at most the {most} largest logits of a row, and this needs {wanted}: "
            f"use temperature 0 or a top_k of at most {most}, and acceptance rule exact, rejection or rank:R with R at "
            f"most {most}"
        )

    def _read(self, questions: Sequence[TextQuestion], needed: Sequence[_LogitsNeeded]) -> list[Floats]:
        """Ask, and where too many of the largest logits are of ids that do not count ask for more of them."""
        answers = self._reader.read(questions) if questions else []
        lacking = [index for index, rows in enumerate(answers) if _num_lacking(rows, needed[index])]
        if not lacking:
            return answers
        answers = list(answers)
        wider = [self._widened(questions[index], needed[index]) for index in lacking]
        for index, rows in zip(lacking, self._reader.read(wider), strict=True):
            if num_lacking := _num_lacking(rows, needed[index]):
                raise EngineError(
                    f"what runs {self.name} gives at most the {self._reader.max_logits} largest logits of a row, and "
                    f"of those of tokens that the device knows this needs {num_lacking} more: use a smaller top_k or "
                    "rank, or a draft model that knows all tokens of the target"
                )
            answers[index] = rows
        return answers

    def _widened(self, question: TextQuestion, needed: _LogitsNeeded) -> TextQuestion:
        assert needed.num_logits is not None, "a whole row lacks nothing"
        most = self.vocabulary.size if self._reader.max_logits is None else self._reader.max_logits
        num_others = self.vocabulary.size - needed.num_ids
        return question._replace(num_logits=min(needed.num_logits + num_others, max(most, needed.num_logits)))

    def _question(self, placement: Placement, branch: _Branch) -> TextQuestion:
        root = placement.tree.start
        log = self._logs[placement.slot]
        nodes = [*log[root : placement.start], *placement.token_ids]
        text = log[:root] + [nodes[node] for node in branch.path]
        return TextQuestion(text, branch.num_rows, self._needed[placement.slot].num_logits)

    def _gather(self, placement: Placement, branches: Sequence[_Branch], answers: Iterator[Floats]) -> Floats:
        """Put the rows of a slot's branches into the order of its nodes: float32 [num_rows, vocab_size]."""
        rows = np.empty((placement.num_rows, self.vocabulary.size), dtype=np.float32)
        first = len(placement.tree.shape) - placement.num_rows
        for branch in branches:
            places = [node - first for node in branch.path[-branch.num_rows :]]
            rows[places] = next(answers)
        return rows


def _num_lacking(rows: Floats, needed: _LogitsNeeded) -> int:
    """How many logits that matter the row that has fewest of them lacks."""
    if needed.num_logits is None or needed.num_ids >= rows.shape[1]:
        return 0
    num_told = np.count_nonzero(rows[:, : needed.num_ids] != -np.inf, axis=1).min()
    return max(0, min(needed.num_logits, needed.num_ids) - int(num_told))


def _branches(placement: Placement) -> list[_Branch]:
    """Cover the nodes whose logits are wanted by as few texts as possible: a text for each leaf among them."""
    shape = placement.tree.shape
    left = set(range(len(shape) - placement.num_rows, len(shape)))
    branches = []
    while left:
        path = shape.path_to(max(left) + 1)
        num_rows = sum(node in left for node in path)  # the last ones: what another branch has, it has up to the root
        left.difference_update(path)
        branches.append(_Branch(path, num_rows))
    return branches
