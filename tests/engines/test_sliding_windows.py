"""Layers that see the last positions only: the cache keeps all, so a rollback past the window finds what it needs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from skydraft.core import Prompt
from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import Extension
from skydraft.engines.huggingface.slot_engine import SlotEngine
from tests.engines.folders import WINDOW
from tests.engines.hugging_face import hugging_face, plain
from tests.engines.operations import RandomOperations, text_prompt

Start = Callable[..., SlotEngine]
Saved = Callable[[str], Path]
KINDS = ["gemma3", "gemma2", "mistral", "phi3", "cohere2", "windowed", "windowless"]
PROMPT = text_prompt(*(8 + i * 7 % 50 for i in range(WINDOW + 8)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "fast_math"), [(1, False), (2, True)])
def test_chains_trees_and_crops_past_the_window_equal_hugging_face_from_scratch(
    start: Start, saved: Saved, kind: str, seed: int, fast_math: bool
) -> None:
    def long_prompt(random: np.random.Generator) -> Prompt:
        return text_prompt(*(int(i) for i in random.integers(8, 64, random.integers(WINDOW - 4, WINDOW + 9))))

    engine = start(kind, num_slots=4, prefill_chunk=11, max_length=128, fast_math=fast_math)
    operations = RandomOperations(
        engine, plain(saved(kind)), seed, vocab_size=64, make_prompt=long_prompt, tolerance=3e-5, max_text=40
    )
    operations.run(35)
    assert operations.largest_difference > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_deeper_than_the_window_sees_its_own_ancestors(start: Start, saved: Saved, kind: str) -> None:
    engine, from_scratch = start(kind, max_length=128), plain(saved(kind))
    slot = engine.open(text_prompt(9, 10)).slot
    trunk = [8 + i * 5 % 50 for i in range(WINDOW + 10)]
    nodes, parents = [60, *trunk, 61], [0, 0, *range(2, len(trunk) + 1), 10]  # a leaf beside the trunk at both ends
    (rows,) = engine.extend([Extension(slot, nodes, TreeShape(tuple(parents)))])
    np.testing.assert_allclose(rows[1:-1], from_scratch(text_prompt(9, 10), trunk)[1:], atol=1e-4)
    branch = [*trunk[:9], 61]
    np.testing.assert_allclose(rows[-1], from_scratch(text_prompt(9, 10), branch)[-1], atol=1e-4)
    engine.keep_path(slot, 0, range(1, len(trunk) + 1))
    (last,) = engine.extend([Extension.chain(slot, [11])])
    np.testing.assert_allclose(last[-1], from_scratch(text_prompt(9, 10), [*trunk, 11])[-1], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_rejected_behind_a_long_prompt_leaves_no_trace(start: Start, saved: Saved, kind: str) -> None:
    engine = start(kind, max_length=128)
    slot = engine.open(PROMPT).slot
    engine.extend([Extension.chain(slot, [8 + i % 50 for i in range(WINDOW + 5)])])
    engine.crop(slot, 3)
    (rows,) = engine.extend([Extension.chain(slot, [20, 21])])
    kept = [8, 9, 10]
    np.testing.assert_allclose(rows, plain(saved(kind))(PROMPT, [*kept, 20, 21])[-2:], atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "windowless"])
def test_the_models_of_these_tests_do_not_see_beyond_their_windows(saved: Saved, kind: str) -> None:
    layers = hugging_face(saved(kind)).config.get_text_config()
    assert layers.sliding_window == WINDOW


def test_one_layer_with_a_window_does_not_see_a_token_before_it(start: Start) -> None:
    engine = start("mistral", max_length=128)
    engine._model.model.model.layers = engine._model.model.model.layers[:1]
    engine._cache._slot_layers[1:] = []
    rows = []
    for first in (8, 50):
        slot, logits = engine.open(text_prompt(first, *range(9, 9 + WINDOW)))
        rows.append(np.asarray(logits))
        engine.close(slot)
    np.testing.assert_array_equal(rows[0], rows[1])
