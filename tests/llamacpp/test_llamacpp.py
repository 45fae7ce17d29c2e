"""The engine computes what Hugging Face computes with the same weights, whatever is done to its slots."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import ChunkedEngine, Engine, Extension, PromptChunk
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.errors import CacheOverflow, EngineError, PromptRejected
from tests.engines import contract
from tests.engines.hugging_face import plain
from tests.engines.operations import RandomOperations, text_prompt
from tests.llamacpp.installed import require_llamacpp

require_llamacpp()

Start = Callable[..., Engine]


@pytest.mark.parametrize("prefill_chunk", [512, 5, 1])
@pytest.mark.parametrize("seed", [1, 2])
def test_ragged_batches_of_chains_and_trees_equal_hugging_face_from_scratch(
    start: Start, twin: Path, seed: int, prefill_chunk: int
) -> None:
    engine = start(num_slots=5, prefill_chunk=prefill_chunk)
    # llama.cpp's exponential function is good to 1e-6, and its sums go another way.
    operations = RandomOperations(engine, plain(twin), seed, vocab_size=engine.vocabulary.num_tokens, tolerance=3e-5)
    operations.run(35)
    assert operations.largest_difference > 0


def test_a_tree_may_be_as_wide_as_an_offer(start: Start, twin: Path) -> None:
    engine = start()
    slot = engine.open(text_prompt(8, 9)).slot
    ids = list(range(10, 74))
    (rows,) = engine.extend([Extension(slot, ids, TreeShape((0,) * len(ids)))])
    expected = plain(twin)(text_prompt(8, 9), ids[30:31])[1]
    np.testing.assert_allclose(rows[30], expected, atol=1e-4)
    engine.keep_path(slot, 0, [30])
    (rows,) = engine.extend([Extension.chain(slot, [11])])
    np.testing.assert_allclose(rows[0], plain(twin)(text_prompt(8, 9), [ids[30], 11])[-1], atol=1e-4)


@pytest.mark.parametrize("check", contract.OF_SUBTREES)
def test_a_subtree_may_be_kept(start: Start, twin: Path, check: contract.Check) -> None:
    check(start(), plain(twin), 1e-4)


def test_prompts_may_be_read_piece_by_piece_beside_other_slots(start: Start, twin: Path) -> None:
    engine = start(num_slots=2)
    assert isinstance(engine, ChunkedEngine)
    long, other = text_prompt(*range(8, 28)), engine.open(text_prompt(8)).slot
    assert engine.measure(long) == 20
    slot = engine.reserve(long)
    first, rows = engine.extend([PromptChunk(slot, 13), Extension.chain(other, [9, 10], num_rows=1)])
    assert (len(first), len(rows)) == (0, 1)
    np.testing.assert_allclose(rows[0], plain(twin)(text_prompt(8), [9, 10])[-1], atol=1e-4)
    (last,) = engine.extend([PromptChunk(slot, 7)])
    np.testing.assert_allclose(last, plain(twin)(long, []), atol=1e-4)


def test_more_branches_than_llama_cpp_has_are_refused_and_change_no_slot(start: Start, twin: Path) -> None:
    engine = start(num_slots=5)
    slots = [engine.open(text_prompt(8 + index)).slot for index in range(5)]
    trees = [Extension(slot, list(range(10, 70)), TreeShape((0,) * 60)) for slot in slots]
    with pytest.raises(CacheOverflow, match="295 more branches of trees were drafted and llama.cpp has 250 sequences"):
        engine.extend(trees)
    all_rows = engine.extend(trees[:4])
    np.testing.assert_allclose(all_rows[3][59], plain(twin)(text_prompt(11), [69])[-1], atol=1e-4)


@pytest.mark.parametrize("end", ["crop", "keep_path", "close"])
def test_branches_come_back_when_a_tree_is_decided_or_its_slot_closed(start: Start, end: str) -> None:
    engine = start()
    for _ in range(2):
        slot = engine.open(text_prompt(8)).slot
        engine.extend([Extension(slot, list(range(10, 60)), TreeShape((0,) * 50))])
        if end == "crop":
            engine.crop(slot, 0)
        elif end == "keep_path":
            engine.keep_path(slot, 0, [3])
        if end != "close":
            engine.extend([Extension(slot, list(range(10, 60)), TreeShape((0,) * 50))])
        engine.close(slot)


def test_an_overflow_leaves_all_slots_as_they_were(start: Start, twin: Path) -> None:
    contract.check_that_an_overflow_changes_no_slot(start(num_slots=2, max_length=6), plain(twin), 1e-4)


def test_all_slots_can_be_filled_to_their_last_index(start: Start, twin: Path) -> None:
    engine = start(num_slots=16, max_length=16)  # 256 cells: as many as llama.cpp's cache then has
    slots = [engine.open(text_prompt(8 + index)).slot for index in range(16)]
    all_rows = engine.extend([Extension.chain(slot, list(range(20, 35))) for slot in slots])
    expected = plain(twin)(text_prompt(23), list(range(20, 35)))[1:]
    np.testing.assert_allclose(all_rows[15], expected, atol=1e-4)


def test_a_failed_pass_leaves_all_slots_as_they_were(start: Start, twin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_cpp

    engine = start(num_slots=2)
    first, second = engine.open(text_prompt(8)).slot, engine.open(text_prompt(9)).slot
    decode = llama_cpp.llama_decode
    tree = Extension(first, [10, 11, 12], TreeShape((0, 0, 2)))

    def fail_late(context: object, batch: object) -> int:
        assert decode(context, batch) == 0
        return -2

    with monkeypatch.context() as patched:
        patched.setattr(llama_cpp, "llama_decode", fail_late)
        with pytest.raises(EngineError, match="llama.cpp cannot read 4 tokens"):
            engine.extend([tree, Extension.chain(second, [13])])
    rows, last = engine.extend([tree, Extension.chain(second, [14])])
    np.testing.assert_allclose(rows[2], plain(twin)(text_prompt(8), [11, 12])[-1], atol=1e-4)
    np.testing.assert_allclose(last, plain(twin)(text_prompt(9), [14])[1:], atol=1e-4)


def test_what_is_no_number_stays_in_its_slot(twin: Path, tmp_path: Path) -> None:
    from tests.llamacpp import files

    tokens = files.sentencepiece_tokens()
    weights = files.random_weights(0, len(tokens.pieces))
    weights["model.embed_tokens.weight"][20] = np.nan
    path = files.write_gguf(tmp_path / "nan.gguf", weights, tokens)
    engine = load_engine(str(path), "target", EngineSettings(num_slots=3, num_threads=1, fast_math=True))
    assert isinstance(engine, ChunkedEngine)
    first, second = engine.open(text_prompt(8, 9)).slot, engine.open(text_prompt(10)).slot
    engine.extend([Extension(first, [11, 12, 13], TreeShape((0, 0, 2)))])
    with pytest.raises(PromptRejected, match="in the prompt, nan gives no finite logits after these 3 tokens"):
        engine.open(text_prompt(8, 20, 9))
    with pytest.raises(EngineError, match="no finite logits"):
        engine.extend([Extension(first, [14], TreeShape((0, 0, 2, 3))), Extension.chain(second, [20])])
    third = engine.reserve(text_prompt(20, 8, 9))
    with pytest.raises(EngineError, match="no finite logits"):
        engine.extend([PromptChunk(third, 2)])
    rows, last = engine.extend([Extension(first, [14], TreeShape((0, 0, 2, 3))), Extension.chain(second, [21])])
    np.testing.assert_allclose(rows[0], plain(twin)(text_prompt(8, 9), [12, 13, 14])[-1], atol=1e-4)
    np.testing.assert_allclose(last[0], plain(twin)(text_prompt(10), [21])[-1], atol=1e-4)
    engine.keep_path(first, 0, [1, 2, 3])
    (rows,) = engine.extend([Extension.chain(first, [15])])
    np.testing.assert_allclose(rows[0], plain(twin)(text_prompt(8, 9), [12, 13, 14, 15])[-1], atol=1e-4)


def test_wrong_use_is_refused(start: Start) -> None:
    engine = start()
    slot = engine.open(text_prompt(8)).slot
    engine.extend([Extension(slot, [9, 10], TreeShape((0, 0)))])
    with pytest.raises(ValueError, match="undecided tree"):
        engine.extend([Extension.chain(slot, [11])])
    with pytest.raises(ValueError, match="no path"):
        engine.keep_path(slot, 0, [0, 1])
    with pytest.raises(ValueError, match="cannot be cropped"):
        engine.crop(slot, 2)
    engine.crop(slot, 1)
    with pytest.raises(EngineError, match="token id 4000 "):
        engine.extend([Extension.chain(slot, [4000])])
    assert engine.extend([]) == []
    engine.close(slot)
    with pytest.raises(ValueError, match="not open"):
        engine.close(slot)


def test_prompts_that_the_model_cannot_take_are_rejected_and_take_no_slot(start: Start) -> None:
    contract.check_that_rejected_prompts_take_no_slot(start())


def test_logits_are_the_callers_to_keep(start: Start) -> None:
    engine = start()
    slot, logits = engine.open(text_prompt(8))
    before = logits.copy()
    engine.extend([Extension.chain(slot, [9])])
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, before)
