"""A target's rows have the same bits whatever is read with them, before them, or rejected; each cause is found."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from skydraft.engines.base import Engine, Extension
from skydraft.engines.load import load_engine
from skydraft.engines.prompt_checks import text_ids
from skydraft.engines.self_test import TextLengths, compare_rows
from skydraft.engines.settings import EngineSettings
from tests.engines.operations import FromScratch, RandomOperations, text_prompt
from tests.llamacpp.installed import require_llamacpp

require_llamacpp()

Miniature = Callable[[str], Path]
KINDS = ["Q4_K_S", "Q5_0", "F16"]  # repacked; llamafile's integers; llamafile's floats
LONG = TextLengths(prompt=530)  # from 512 cells on, llama.cpp splits a row among threads


def load(path: Path, **settings: object) -> Engine:
    return load_engine(str(path), "target", EngineSettings(**{"num_threads": 1, "num_slots": 2, **settings}))


def one_by_one(engine: Engine) -> FromScratch:
    """The same model, which reads each text from its start, a token in a pass."""

    @lru_cache
    def rows(prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> np.ndarray:
        slot, logits = engine.open(text_prompt(*prompt_ids))
        read = [engine.extend([Extension.chain(slot, [token_id])])[0][0] for token_id in token_ids]
        engine.close(slot)
        return np.stack([logits, *read])

    return lambda prompt, token_ids: rows(tuple(text_ids(prompt)), tuple(token_ids))


@pytest.mark.parametrize("kind", KINDS)
def test_the_self_test_finds_no_difference(miniature: Miniature, kind: str) -> None:
    engine = load(miniature(kind), prefill_chunk=64, num_threads=2)
    assert engine.row_promise.is_invariant
    assert compare_rows(engine, LONG).ways == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_trees_crops_and_slots_at_random_leave_the_bits_of_one_by_one(
    miniature: Miniature, kind: str, seed: int
) -> None:
    engine = load(miniature(kind), num_slots=4, prefill_chunk=5)
    alone = one_by_one(load(miniature(kind), num_slots=1, prefill_chunk=5))
    RandomOperations(engine, alone, seed, vocab_size=engine.vocabulary.num_tokens, tolerance=0.0).run(60)
