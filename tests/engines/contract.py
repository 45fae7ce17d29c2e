"""What every engine owes its callers beyond the right logits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from skydraft.core import Prompt, TensorSegment, TokenSegment
from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import ChunkedEngine, Engine, Extension, PromptChunk, Slot
from skydraft.errors import CacheOverflow, PromptRejected
from tests.engines.operations import FromScratch, text_prompt

PROMPT = text_prompt(8, 9)


def tree_after(engine: Engine) -> Slot:
    """A slot that has read PROMPT and 11 -> (12, 13 -> 14), 10."""
    slot = engine.open(PROMPT).slot
    engine.extend([Extension(slot, [10, 11, 12, 13, 14], TreeShape((0, 0, 2, 2, 4)))])
    return slot


def check_that_a_kept_subtree_grows_on(engine: Engine, from_scratch: FromScratch, atol: float) -> None:
    slot = tree_after(engine)
    engine.keep_path(slot, 0, [1], rest=[3, 4])
    (rows,) = engine.extend([Extension(slot, [20, 21, 22], TreeShape((0, 1, 0, 1, 2)))])
    for row, ids in zip(rows, ([11, 20], [11, 13, 21], [11, 13, 14, 22]), strict=True):
        np.testing.assert_allclose(row, from_scratch(PROMPT, ids)[-1], atol=atol)
    engine.keep_path(slot, 1, [0, 3])
    (rows,) = engine.extend([Extension.chain(slot, [23])])
    np.testing.assert_allclose(rows[0], from_scratch(PROMPT, [11, 13, 21, 23])[-1], atol=atol)


def check_that_paths_may_be_kept_one_after_the_other(engine: Engine, from_scratch: FromScratch, atol: float) -> None:
    slot = tree_after(engine)
    engine.keep_path(slot, 0, [1], rest=[2, 3, 4])
    engine.keep_path(slot, 1, [1, 2])
    (rows,) = engine.extend([Extension.chain(slot, [23])])
    np.testing.assert_allclose(rows[0], from_scratch(PROMPT, [11, 13, 14, 23])[-1], atol=atol)


def check_that_a_kept_subtree_can_be_cropped(engine: Engine, from_scratch: FromScratch, atol: float) -> None:
    slot = tree_after(engine)
    engine.keep_path(slot, 0, [1], rest=[3, 4])
    engine.crop(slot, 2)
    (rows,) = engine.extend([Extension.chain(slot, [23])])
    np.testing.assert_allclose(rows[0], from_scratch(PROMPT, [11, 13, 23])[-1], atol=atol)


Check = Callable[[Engine, FromScratch, float], None]
OF_SUBTREES: tuple[Check, ...] = (
    check_that_a_kept_subtree_grows_on,
    check_that_paths_may_be_kept_one_after_the_other,
    check_that_a_kept_subtree_can_be_cropped,
)


def check_that_an_overflow_changes_no_slot(engine: Engine, from_scratch: FromScratch, atol: float) -> None:
    """Of an engine with 2 slots of 6 tokens."""
    first, second = engine.open(text_prompt(8, 9, 10)).slot, engine.open(text_prompt(11)).slot
    with pytest.raises(CacheOverflow, match="holds 3 tokens, and 4 more do not fit into 6"):
        engine.extend([Extension.chain(second, [12, 13]), Extension.chain(first, [8, 9, 10, 11])])
    (rows,) = engine.extend([Extension.chain(second, [14])])
    np.testing.assert_allclose(rows, from_scratch(text_prompt(11), [14])[1:], atol=atol)
    with pytest.raises(CacheOverflow, match="all 2 slots"):
        engine.open(text_prompt(8))
    engine.close(first)
    with pytest.raises(CacheOverflow, match="prompt has 7 tokens"):
        engine.open(text_prompt(*range(8, 15)))
    engine.open(text_prompt(8))


def check_that_a_prompt_begins_with_what_another_slot_has_read(
    engine: ChunkedEngine, prompt: Prompt, longer: Prompt, num_reused: int
) -> None:
    """Of an engine with 2 slots, to the bit. Both prompts have so many tokens in common, and a piece may end there."""
    other_text, text = [9, 8, 11], [12, 13, 14]
    alone = engine.open(longer)
    (expected,) = engine.extend([Extension.chain(alone.slot, text)])
    expected = np.asarray(expected).copy()
    engine.close(alone.slot)
    first = engine.open(prompt).slot
    engine.extend([Extension.chain(first, other_text)])
    cuts = [end for end in engine.prefix_reuse.ends(engine.prompt_ids(prompt)) if end <= num_reused]
    assert cuts[-1] == num_reused
    pieces = [engine.copy_out(first, *run) for run in pairwise(sorted({0, cuts[(len(cuts) - 1) // 2], num_reused}))]
    engine.extend([Extension.chain(first, other_text)])
    second = engine.reserve(longer, pieces)
    num_left = engine.measure(longer) - num_reused
    with pytest.raises(ValueError, match=f"has {num_left} left"):
        engine.extend([PromptChunk(second, num_left + 1)])
    (rows,) = engine.extend([PromptChunk(second, num_left)])
    np.testing.assert_array_equal(rows[0], alone.logits)
    np.testing.assert_array_equal(engine.extend([Extension.chain(second, text)])[0], expected)
    with pytest.raises(ValueError, match="at least the last"):
        engine.reserve(prompt, [engine.copy_out(first, 0, engine.measure(prompt))])
    for slot in (first, second):
        engine.close(slot)


def check_that_rejected_prompts_take_no_slot(engine: Engine) -> None:
    """Of an engine with 1 slot that reads text only."""
    log_mel = TensorSegment("log_mel", "float16", (1, 1), b"ab")
    empty, wrong_ids = (Prompt(()), text_prompt()), (text_prompt(8, engine.vocabulary.size), text_prompt(-1))
    for prompt in (*empty, *wrong_ids, Prompt((TokenSegment((8,)), log_mel))):
        with pytest.raises(PromptRejected):
            engine.open(prompt)
        engine.close(engine.open(text_prompt(8)).slot)
