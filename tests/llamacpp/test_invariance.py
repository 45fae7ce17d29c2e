"""A target's rows have the same bits whatever is read with them, was read before them, or was rejected."""

from __future__ import annotations

from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import ChunkedEngine, Engine, Extension, PrefixReuse
from skydraft.engines.load import load_engine
from skydraft.engines.prompt_checks import text_ids
from skydraft.engines.self_test import compare_rows
from skydraft.engines.settings import EngineSettings
from skydraft.errors import EngineError, PromptRejected
from skydraft.scheduling.batcher import Batcher
from skydraft.scheduling.prefix_cache import make_prefix_cache
from tests.conversations import TURNS, Conversation
from tests.engines import contract
from tests.engines.operations import FromScratch, RandomOperations, text_prompt
from tests.llamacpp.installed import require_llamacpp
from tests.llamacpp.targets import LONG, SHORT, Miniature, load

require_llamacpp()

PROMPT_CHUNK = 64
KINDS = ["Q4_K_S", "Q5_0", "F16"]  # repacked; llamafile's kernels of integers; those of floats


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
@pytest.mark.parametrize("seed", [1, 2])
def test_trees_crops_and_slots_at_random_leave_the_bits_of_one_by_one(
    miniature: Miniature, kind: str, seed: int
) -> None:
    engine = load(miniature(kind), num_slots=4, prefill_chunk=5)
    alone = one_by_one(load(miniature(kind), num_slots=1, prefill_chunk=5))
    RandomOperations(engine, alone, seed, vocab_size=engine.vocabulary.num_tokens, tolerance=0.0).run(60)


@pytest.mark.parametrize(("kind", "max_rows"), [("Q4_K_S", 3), ("Q5_0", 3), ("F16", 1), ("Q5_0 experts", 1)])
def test_the_self_test_finds_no_difference(miniature: Miniature, kind: str, max_rows: int) -> None:
    engine = load(miniature(kind), prefill_chunk=16)
    assert engine.row_promise.is_invariant
    assert f"rows are read at most {max_rows} at a time" in engine.row_promise.reason
    assert compare_rows(engine, SHORT).ways == ()


@pytest.mark.parametrize("kind", [*KINDS, "Q5_0 experts"])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_prompt_begins_with_what_another_slot_has_read(miniature: Miniature, kind: str, num_threads: int) -> None:
    engine = load(miniature(kind), num_threads=num_threads)
    assert isinstance(engine, ChunkedEngine)
    assert engine.prefix_reuse == PrefixReuse(PROMPT_CHUNK, frozenset(engine.vocabulary.end_ids), takes_text=False)
    ids = np.random.default_rng(3).integers(8, engine.vocabulary.num_tokens, 210).tolist()
    prompts = text_prompt(*ids[:140]), text_prompt(*ids[:130], *ids[150:])
    contract.check_that_a_prompt_begins_with_what_another_slot_has_read(engine, *prompts, 2 * PROMPT_CHUNK)
    ids[19] = ids[89] = engine.vocabulary.end_ids[0]
    prompts = text_prompt(*ids[:140]), text_prompt(*ids[:100], *ids[150:])
    contract.check_that_a_prompt_begins_with_what_another_slot_has_read(engine, *prompts, 20 + PROMPT_CHUNK)
    prompts = text_prompt(*ids[:70]), text_prompt(*ids[:30], *ids[150:])
    contract.check_that_a_prompt_begins_with_what_another_slot_has_read(engine, *prompts, 20)


def test_threads_change_no_bit(miniature: Miniature) -> None:
    """Of one row after 512 cells, which two threads could share."""
    assert compare_rows(load(miniature("Q4_K_S"), num_threads=2), LONG).ways == ()


def test_the_cells_of_rejected_nodes_are_free_again_when_the_text_is_written_anew(
    miniature: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llama_cpp

    clear, cleared = llama_cpp.llama_memory_clear, list[object]()
    monkeypatch.setattr(llama_cpp, "llama_memory_clear", lambda *of: cleared.append(clear(*of)))
    engine, alone = load(miniature("Q4_K_S"), max_length=64), one_by_one(load(miniature("Q4_K_S")))
    prompt, slot = text_prompt(8, 9), 0
    assert engine.open(prompt).slot == slot
    kept: list[int] = []
    for turn in range(200):  # 3 cells are held in each: more than a cache has
        if len(kept) == 40:
            kept = kept[:20]
            engine.crop(slot, len(kept))
        ids = [20 + turn, 30 + turn, 40 + turn, 50 + turn, 60 + turn]
        (rows,) = engine.extend([Extension(slot, ids, TreeShape((0, 0, 0, 0, 4)))])
        engine.keep_path(slot, len(kept), [3, 4])
        kept += ids[3:]
        if cleared:
            np.testing.assert_array_equal(rows[4], alone(prompt, kept)[-1])
    assert len(cleared) == 1


def test_a_failed_pass_leaves_all_slots_as_they_were(miniature: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_cpp

    engine, alone = load(miniature("Q4_K_S")), one_by_one(load(miniature("Q4_K_S")))
    first, second = engine.open(text_prompt(8)).slot, engine.open(text_prompt(9)).slot
    tree = Extension(first, [10, 11, 12, 13], TreeShape((0, 0, 2, 3)))
    decode, num_passes = llama_cpp.llama_decode, count(1)
    with monkeypatch.context() as patched:  # two passes for the tree, and the third fails
        patched.setattr(llama_cpp, "llama_decode", lambda *of: -2 if next(num_passes) == 3 else decode(*of))
        with pytest.raises(EngineError, match="llama.cpp cannot read 1 tokens"):
            engine.extend([tree, Extension.chain(second, [14])])
    rows, last = engine.extend([tree, Extension.chain(second, [15])])
    np.testing.assert_array_equal(rows[3], alone(text_prompt(8), [11, 12, 13])[-1])
    np.testing.assert_array_equal(last[0], alone(text_prompt(9), [15])[-1])


def test_what_is_no_number_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    from tests.llamacpp import files

    tokens = files.sentencepiece_tokens()
    weights = files.random_weights(0, len(tokens.pieces))
    weights["model.embed_tokens.weight"][20] = np.nan
    engine = load(files.write_gguf(tmp_path / "nan.gguf", weights, tokens))
    slot, logits = engine.open(text_prompt(8, 9))
    with pytest.raises(PromptRejected, match="in the prompt, nan gives no finite logits"):
        engine.open(text_prompt(8, 20, 9))
    with pytest.raises(EngineError, match="no finite logits"):
        engine.extend([Extension.chain(slot, [10, 11, 12, 20])])
    (rows,) = engine.extend([Extension.chain(slot, [10])])
    other = engine.open(text_prompt(8, 9))
    np.testing.assert_array_equal(logits, other.logits)
    np.testing.assert_array_equal(rows, engine.extend([Extension.chain(other.slot, [10])])[0])


def test_a_draft_and_fast_math_promise_nothing(miniature: Miniature) -> None:
    draft = load_engine(str(miniature("Q4_K_S")), "draft", EngineSettings(num_threads=1))
    for engine in (draft, load(miniature("Q4_K_S"), fast_math=True)):
        assert not engine.row_promise.is_invariant
    assert compare_rows(engine, SHORT).ways


def test_a_machine_that_was_not_tested_is_promised_nothing(
    miniature: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    promise = load(miniature("Q4_K_S")).row_promise
    assert (promise.is_invariant, promise.reason) == (False, "llama.cpp was not tested on aarch64")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_messages", [False, True])
def test_hybrid_texts_of_a_conversation_are_the_clouds_own(miniature: Miniature, kind: str, has_messages: bool) -> None:
    engine = load(miniature(kind), max_length=512)
    batcher = Batcher(engine, prefill_tokens=50, prefixes=make_prefix_cache(engine, 2**26))
    end = engine.vocabulary.end_ids[:1] if has_messages else ()
    talk = Conversation(batcher, load(miniature(kind), max_length=512), list(range(20, 120)), seed=3, end=end)
    for _ in range(TURNS):
        talk.turn(question=40)
    assert isinstance(engine, ChunkedEngine)
    cuts, before = list(engine.prefix_reuse.ends(talk.prompt_ids)), talk.prompt_lengths[:-1]
    assert talk.num_reused == sum(max(cut for cut in cuts if cut <= length) for length in before)
    in_chunks = [length // PROMPT_CHUNK * PROMPT_CHUNK for length in before]
    assert talk.num_reused == sum(before if has_messages else in_chunks)
