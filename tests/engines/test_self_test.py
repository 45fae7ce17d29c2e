"""The self-test of rows finds each way in which an engine breaks row invariance, and nothing where none is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from skydraft.core import Prompt
from skydraft.engines.base import Array, EngineLimits, Extension, KvPiece, PromptChunk, RowPromise, Slot
from skydraft.engines.emulated.table import TableEngine
from skydraft.engines.emulated.words import word_vocabulary
from skydraft.engines.external.text_engine import TextEngine, TextQuestion
from skydraft.engines.load import load_engine
from skydraft.engines.self_test import compare_rows, hold_to_promise
from skydraft.engines.settings import EngineSettings
from tests.engines.operations import text_prompt

TABLE = np.random.default_rng(4).standard_normal((64, 64), dtype=np.float32)
LIMITS = EngineLimits(num_slots=2, max_length=64)
BLOCKS = ("blocks of 2", "blocks of 5", "blocks of 8", "blocks of 33")
Items = Sequence[Extension | PromptChunk]


class Company(TableEngine):
    """A table whose rows change by half a unit in the last place but one in company that `spoils` names."""

    def __init__(self, spoils: Callable[[Company, Items], bool], limits: EngineLimits = LIMITS) -> None:
        table = np.random.default_rng(3).standard_normal((4096, 64), dtype=np.float32)
        super().__init__(table, order=2, limits=limits)
        self._spoils = spoils
        self.cropped: set[Slot] = set()
        self.trees: set[Slot] = set()
        self.copies: set[Slot] = set()

    def reserve(self, prompt: Prompt, beginning: Sequence[KvPiece] = ()) -> Slot:
        slot = super().reserve(prompt, beginning)
        self.copies.update([slot] if beginning else [])
        return slot

    def extend(self, extensions: Items) -> list[Array]:
        logits = super().extend(extensions)
        if self._spoils(self, extensions):
            logits = [rows + (np.arange(64) == 7) * np.float32(2**-20) for rows in logits]
        self.cropped -= {item.slot for item in extensions}
        return logits

    def crop(self, slot: Slot, keep_length: int) -> None:
        super().crop(slot, keep_length)
        if keep_length:
            self.cropped.add(slot)

    def keep_path(self, slot: Slot, start: int, path: Sequence[int], rest: Sequence[int] = ()) -> None:
        super().keep_path(slot, start, path, rest)
        self.trees.add(slot)

    def close(self, slot: Slot) -> None:
        super().close(slot)
        self.trees.discard(slot)
        self.copies.discard(slot)


def has_width(least: int) -> Callable[[Company, Items], bool]:
    return lambda engine, items: any(isinstance(e, Extension) and len(e.token_ids) >= least for e in items)


def has_tree(engine: Company, items: Items) -> bool:
    return any(isinstance(item, Extension) and not item.shape.is_chain for item in items)


def follows_a_crop(engine: Company, items: Items) -> bool:
    return any(item.slot in engine.cropped for item in items)


def follows_a_kept_path(engine: Company, items: Items) -> bool:
    return any(isinstance(item, Extension) and item.slot in engine.trees and item.shape.is_chain for item in items)


def has_two_slots(engine: Company, items: Items) -> bool:
    return len(items) > 1


def has_a_part_of_a_prompt(engine: Company, items: Items) -> bool:
    return any(isinstance(item, PromptChunk) and item.num_tokens < 24 for item in items)


def follows_a_copy(engine: Company, items: Items) -> bool:
    return any(item.slot in engine.copies for item in items)


@pytest.mark.parametrize(
    ("spoils", "found"),
    [
        (has_width(2), (*BLOCKS, "trees", "two slots", "restored")),
        (has_width(6), ("blocks of 8", "blocks of 33", "trees", "two slots")),
        (has_width(9), ("blocks of 33",)),
        (has_tree, ("trees", "two slots")),
        (follows_a_kept_path, ("trees", "crops", "two slots")),
        (follows_a_crop, ("trees", "crops", "swapped")),
        (has_two_slots, ("two slots",)),
        (has_a_part_of_a_prompt, ("two slots", "restored", "reused")),
        (follows_a_copy, ("reused",)),
    ],
)
def test_each_way_to_break_invariance_is_found(
    spoils: Callable[[Company, Items], bool], found: tuple[str, ...]
) -> None:
    differences = compare_rows(Company(spoils))
    assert differences.ways == found
    assert differences.largest == pytest.approx(2**-20, rel=0.2)
    assert differences.gap_change == pytest.approx(2**-20, rel=0.2)


def test_a_promise_that_is_not_kept_is_taken_back_with_what_was_measured() -> None:
    engine = Company(has_two_slots)
    assert engine.row_promise.is_invariant
    hold_to_promise(engine)
    assert not engine.row_promise.is_invariant
    assert engine.row_promise.reason == "its self-test found other logits in two slots"
    assert engine.row_promise.gap_change == pytest.approx(2**-20, rel=0.2)


def test_a_promise_that_is_kept_stands_and_none_is_made_by_a_test() -> None:
    for is_invariant in (True, False):
        engine = Company(lambda *_: False)
        engine.row_promise = RowPromise(is_invariant, "it says so")
        hold_to_promise(engine)
        assert engine.row_promise == RowPromise(is_invariant, "it says so", 0.0)


def test_all_slots_are_closed_after_a_test() -> None:
    engine = load_engine("table:vocab=64", "target", EngineSettings(num_slots=2))
    hold_to_promise(engine)
    assert [engine.open(text_prompt(1)).slot for _ in range(2)] == [0, 1]


def test_slots_without_room_are_not_tested() -> None:
    engine = Company(has_width(1), EngineLimits(1, max_length=47))
    assert hold_to_promise(engine) is None
    assert engine.row_promise.is_invariant
    assert engine.row_promise.gap_change is None
    engine = Company(has_width(2), EngineLimits(1, max_length=48))
    assert hold_to_promise(engine) is not None
    assert not engine.row_promise.is_invariant


@pytest.mark.parametrize("max_logits", [None, 40])
def test_an_engine_that_tells_the_largest_logits_alone_is_tested_by_these(max_logits: int | None) -> None:
    class Reader:
        """Texts on a table, of whose logits it tells no more than are asked for."""

        def __init__(self) -> None:
            self.max_logits = max_logits

        def read(self, questions: Sequence[TextQuestion]) -> list[np.ndarray]:
            return [self._rows(question) for question in questions]

        def _rows(self, question: TextQuestion) -> np.ndarray:
            rows = TABLE[list(question.token_ids[-question.num_rows :])].copy()
            rows[np.argsort(np.argsort(-rows)) >= question.num_asked(64)] = -np.inf
            return rows + np.float32(2**-20) * (question.num_rows > 2)

    found = compare_rows(TextEngine(Reader(), word_vocabulary(64), LIMITS))
    assert set(found.ways) >= {"blocks of 5", "trees"}
    assert "blocks of 2" not in found.ways
    assert found.largest == pytest.approx(2**-20, rel=0.5)
