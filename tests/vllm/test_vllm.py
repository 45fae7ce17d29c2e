from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from skydraft.core import Exact, Prompt, Rank, SamplingParams, TokenSegment
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.base import Extension, NarrowEngine
from skydraft.engines.external.text_engine import TextEngine, TextQuestion
from skydraft.engines.external.vllm import VllmReader
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.engines.settings import EngineSettings
from skydraft.errors import CacheOverflow, EngineError, PromptRejected
from tests.engines.hugging_face import plain
from tests.engines.operations import RandomOperations, text_prompt
from tests.linked import Linked, cloud_only, random_tree
from tests.spy import spy_on
from tests.vllm.installed import require_vllm

require_vllm()

LONG_IDS = tuple(8 + i % 50 for i in range(90))
LONG_PROMPT = text_prompt(*LONG_IDS)
SAMPLINGS = [
    SamplingParams(max_tokens=60),
    SamplingParams(temperature=0.9, top_k=12, top_p=0.95, seed=3, max_tokens=60),
    SamplingParams(temperature=1.2, seed=4, max_tokens=60),
]


def long_prompts(random: np.random.Generator) -> Prompt:
    """From a short list, so that sessions share what is cached; longer than a block of it."""
    length = int(random.choice([5, 31, 40, 64, 100]))
    return Prompt((TokenSegment(tuple(8 + i % 50 for i in range(length))),))


def difference(rows: np.ndarray, others: np.ndarray) -> float:
    """The largest difference of a logit that both tell."""
    both = np.isfinite(rows) & np.isfinite(others)
    return float(np.abs(rows[both] - others[both]).max())


def reader_of(engine: TextEngine) -> VllmReader:
    reader = engine._reader
    assert isinstance(reader, VllmReader)
    return reader


@pytest.mark.parametrize("seed", [1, 2])
def test_ragged_batches_of_chains_and_trees_equal_hugging_face_from_scratch(
    engine: TextEngine, folder: Path, seed: int
) -> None:
    operations = RandomOperations(
        engine, plain(folder), seed, vocab_size=64, make_prompt=long_prompts, tolerance=1e-4, max_text=80
    )
    operations.run(50)
    assert operations.largest_difference > 0


@pytest.mark.parametrize("num_logits", [1, 10, None])
def test_rows_asked_for_together_equal_rows_asked_for_alone(
    engine: TextEngine, folder: Path, num_logits: int | None
) -> None:
    prompts = [text_prompt(*range(8, 8 + length)) for length in (3, 30, 50)]
    drafts = [[20, 21, 22, 23], [30, 31, 32, 33, 34], [40, 41]]
    slots = [engine.open_narrow(prompt, num_logits).slot for prompt in prompts]
    together = engine.extend([Extension.chain(slot, draft) for slot, draft in zip(slots, drafts, strict=True)])
    for slot, draft, prompt, rows in zip(slots, drafts, prompts, together, strict=True):
        engine.close(slot)
        alone = engine.open_narrow(prompt, num_logits).slot
        (expected,) = engine.extend([Extension.chain(alone, draft)])
        engine.close(alone)
        assert rows.argmax(1).tolist() == expected.argmax(1).tolist()
        assert rows.argmax(1).tolist() == plain(folder)(prompt, draft)[1:].argmax(1).tolist()
        assert difference(rows, expected) < 1e-5
        assert (np.isfinite(rows).sum(1) >= (num_logits or 64)).all()


def test_a_narrow_row_tells_the_largest_logits_and_nothing_wrong(engine: TextEngine, folder: Path) -> None:
    slot, row = engine.open_narrow(LONG_PROMPT, 4)
    (rows,) = engine.extend([Extension.chain(slot, [11, 12, 13])])
    expected = plain(folder)(LONG_PROMPT, [11, 12, 13])
    for told, true in zip([row, *rows], expected, strict=True):
        assert set(np.argsort(-true)[:4]) <= set(np.flatnonzero(np.isfinite(told)))
        assert np.isfinite(told).sum() < 64
        assert difference(told, true) < 1e-4


def test_rows_that_another_session_left_in_the_cache_are_computed_again(
    engine: TextEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = [int(i) for i in np.random.default_rng(5).integers(8, 64, 70)]
    questions = spy_on(monkeypatch, VllmReader, "_ask", lambda reader, asked: sum(map(len, asked)))
    rows = []
    for _ in range(2):
        slot, _row = engine.open_narrow(LONG_PROMPT, 1)
        rows += engine.extend([Extension.chain(slot, draft)])
    assert questions == [1, 1, 1, 1, 70]  # two prompts and two drafts; the second draft row by row
    expected = plain(folder)(LONG_PROMPT, draft)[1:]
    for told in rows:
        assert difference(told, expected) < 1e-4


def test_the_log_of_a_slot_is_not_computed_again(engine: TextEngine) -> None:
    slot, _row = engine.open_narrow(LONG_PROMPT, 1)
    engine.extend([Extension.chain(slot, [9] * 40)])
    engine.crop(slot, 37)
    text = [*LONG_IDS, *[9] * 37, 10, 11, 12]
    (output,) = reader_of(engine)._run([TextQuestion(text, 3, 1)])
    assert output.num_cached_tokens >= 96  # whole blocks of 32 before the draft


def test_greedy_text_equals_that_of_the_transformers_engine(engine: TextEngine, folder: Path) -> None:
    sampling = SamplingParams(max_tokens=120)
    other = load_engine(str(folder), "target", EngineSettings(num_slots=1))
    for prompt in (text_prompt(9, 10, 11), LONG_PROMPT):
        assert cloud_only(engine, sampling, prompt) == cloud_only(other, sampling, prompt)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hybrid_text_equals_the_clouds_own(engine: TextEngine, sampling: SamplingParams, seed: int) -> None:
    truth = cloud_only(engine, sampling, LONG_PROMPT)
    rng = Random(seed)
    linked = Linked(EdgeSession(engine.vocabulary, LONG_PROMPT, sampling, Exact()), engine)
    linked.open()
    num_accepted = 0
    while not linked.session.is_complete:
        before = len(linked.session.token_ids)
        token_ids, shape = random_tree(rng, truth, before, rng.randint(1, 7))
        linked.session.offer(token_ids, shape)
        linked.send_due()
        linked.settle()
        num_accepted += len(linked.session.token_ids) - before - 1
    assert list(linked.session.token_ids) == truth
    assert num_accepted > 10


def test_a_session_of_few_logits_asks_for_few(engine: TextEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[int | None] = set()
    read = VllmReader.read

    def spy(reader: VllmReader, questions: list[TextQuestion]) -> Any:
        asked.update(question.num_logits for question in questions)
        return read(reader, questions)

    monkeypatch.setattr(VllmReader, "read", spy)
    session = EdgeSession(engine.vocabulary, LONG_PROMPT, SamplingParams(max_tokens=5), Rank(7))
    linked = Linked(session, engine)
    linked.open()
    session.offer([9, 10], None)
    linked.send_due()
    linked.settle()
    assert asked == {7}


def test_a_slot_says_what_it_cannot_take(engine: TextEngine) -> None:
    assert isinstance(engine, NarrowEngine)
    assert engine.limits == (5, 511)
    with pytest.raises(CacheOverflow, match="512 tokens and a slot has room for 511"):
        engine.open(text_prompt(*[9] * 512))
    with pytest.raises(PromptRejected, match="64"):
        engine.open(text_prompt(64))
    slot = engine.open(text_prompt(*[9] * 510)).slot
    with pytest.raises(EngineError, match="token id 64"):
        engine.extend([Extension.chain(slot, [64])])
    with pytest.raises(CacheOverflow, match="2 more do not fit"):
        engine.extend([Extension.chain(slot, [9, 9])])
    (rows,) = engine.extend([Extension.chain(slot, [9])])
    assert rows.shape == (1, 64)


def test_a_failure_of_vllm_is_one_sentence_and_the_next_pass_is_right(
    engine: TextEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = engine.open(LONG_PROMPT).slot
    core = reader_of(engine)._llm.llm_engine
    with monkeypatch.context() as patched:
        patched.setattr(core, "step", lambda: (_ for _ in ()).throw(RuntimeError("out of memory\nat line 5")))
        with pytest.raises(EngineError, match="vLLM cannot read 2 texts with .*: out of memory$"):
            engine.extend([Extension.chain(slot, [9, 10])])
    (rows,) = engine.extend([Extension.chain(slot, [11, 12])])
    assert np.abs(rows - plain(folder)(LONG_PROMPT, [11, 12])[1:]).max() < 1e-4


def test_the_tokenizer_of_a_vllm_model_is_its_folders(engine: TextEngine, folder: Path) -> None:
    assert load_tokenizer(f"vllm:{folder}", "draft").vocabulary == engine.vocabulary
