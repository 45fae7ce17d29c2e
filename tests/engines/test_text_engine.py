from collections.abc import Sequence

import numpy as np
import pytest

from skydraft.core import Prompt, Rank, SamplingParams, TensorSegment, TokenSegment
from skydraft.core.tree_shape import TreeShape
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.base import EngineLimits, Extension
from skydraft.engines.emulated.words import word_vocabulary
from skydraft.engines.external import text_engine
from skydraft.engines.external.text_engine import Floats, TextEngine, TextQuestion
from skydraft.errors import CacheOverflow, EngineError, PromptRejected
from tests.engines.operations import RandomOperations, text_prompt
from tests.linked import Linked

VOCAB_SIZE = 24
TREE = (0, 0, 1, 1, 4)  # 0 -> (2, 3 -> 4), 1


def row_after(token_ids: Sequence[int]) -> Floats:
    return np.random.default_rng(list(token_ids)).normal(size=VOCAB_SIZE).astype(np.float32)


class MadeUpReader:
    """A row depends on all tokens before it."""

    def __init__(self, max_logits: int | None = None) -> None:
        self.max_logits = max_logits
        self.asked: list[list[TextQuestion]] = []
        self.error: EngineError | None = None

    def read(self, questions: Sequence[TextQuestion]) -> list[Floats]:
        self.asked.append(list(questions))
        if self.error is not None:
            raise self.error
        return [np.stack([row_after(r.token_ids[:end]) for end in ends(r)]) for r in questions]


def ends(question: TextQuestion) -> range:
    length = len(question.token_ids)
    return range(length - question.num_rows + 1, length + 1)


def start(max_logits: int | None = None, num_slots: int = 5) -> tuple[TextEngine, MadeUpReader]:
    reader = MadeUpReader(max_logits)
    return TextEngine(reader, word_vocabulary(VOCAB_SIZE), EngineLimits(num_slots, max_length=64)), reader


def from_scratch(prompt: Prompt, token_ids: list[int]) -> np.ndarray:
    (segment,) = prompt.segments
    assert isinstance(segment, TokenSegment)
    before = list(segment.token_ids)
    return np.stack([row_after(before + token_ids[:end]) for end in range(len(token_ids) + 1)])


@pytest.mark.parametrize("seed", range(6))
def test_ragged_batches_of_chains_and_trees_equal_texts_read_from_scratch(seed: int) -> None:
    engine, _ = start()
    operations = RandomOperations(engine, from_scratch, seed, vocab_size=VOCAB_SIZE, tolerance=0)
    operations.run(120)
    assert len(operations.texts) > 0


def test_a_tree_is_as_many_texts_as_leaves_and_each_row_is_asked_for_once() -> None:
    engine, reader = start()
    slot = engine.open(text_prompt(1, 2)).slot
    (rows,) = engine.extend([Extension(slot, [10, 11, 12, 13, 14], TreeShape(TREE))])
    assert reader.asked[-1] == [
        TextQuestion([1, 2, 10, 13, 14], 3, None),
        TextQuestion([1, 2, 10, 12], 1, None),
        TextQuestion([1, 2, 11], 1, None),
    ]
    texts = [[10], [11], [10, 12], [10, 13], [10, 13, 14]]
    assert (rows == np.stack([row_after([1, 2, *text]) for text in texts])).all()


def test_all_slots_of_a_pass_are_asked_about_together() -> None:
    engine, reader = start()
    slots = [engine.open(text_prompt(1, length)).slot for length in range(3)]
    engine.extend([Extension.chain(slot, [5, 6]) for slot in slots])
    assert len(reader.asked) == 4
    assert [question.token_ids for question in reader.asked[-1]] == [[1, 0, 5, 6], [1, 1, 5, 6], [1, 2, 5, 6]]


def test_rows_that_nobody_wants_are_not_asked_for() -> None:
    engine, reader = start()
    slot = engine.open(text_prompt(1)).slot
    (none,) = engine.extend([Extension.chain(slot, [5, 6, 7], num_rows=0)])
    assert none.shape == (0, VOCAB_SIZE)
    (last,) = engine.extend([Extension(slot, [8, 9, 10], TreeShape((0, 1, 1)), num_rows=2)])
    assert reader.asked[1:] == [[TextQuestion([1, 5, 6, 7, 8, 10], 1, None), TextQuestion([1, 5, 6, 7, 8, 9], 1, None)]]
    assert (last == np.stack([row_after([1, 5, 6, 7, 8, 9]), row_after([1, 5, 6, 7, 8, 10])])).all()


def test_a_kept_subtree_grows_on() -> None:
    engine, reader = start()
    slot = engine.open(text_prompt(1)).slot
    engine.extend([Extension(slot, [10, 11, 12, 13, 14], TreeShape(TREE))])
    engine.keep_path(slot, 0, [0], [2, 3])
    engine.extend([Extension(slot, [20], TreeShape((0, 0, 2)))])
    assert reader.asked[-1] == [TextQuestion([1, 10, 13, 20], 1, None)]


def test_a_pass_that_fails_changes_no_slot() -> None:
    engine, reader = start()
    slot = engine.open(text_prompt(1)).slot
    reader.error = EngineError("no")
    with pytest.raises(EngineError, match="no"):
        engine.extend([Extension.chain(slot, [5, 6])])
    reader.error = None
    (rows,) = engine.extend([Extension.chain(slot, [7])])
    assert (rows[0] == row_after([1, 7])).all()


def test_a_prompt_that_cannot_be_read_takes_no_slot() -> None:
    engine, reader = start(num_slots=1)
    reader.error = EngineError("no")
    for _ in range(2):
        with pytest.raises(EngineError, match="no"):
            engine.open(text_prompt(1))
    reader.error = None
    assert engine.open(text_prompt(1)).slot == 0


def test_prompts_are_refused_before_anything_is_asked() -> None:
    engine, reader = start()
    tensor = TensorSegment("log_mel", "float32", (1, 1), bytes(4))
    for prompt, error in [
        (Prompt((tensor,)), PromptRejected),
        (text_prompt(), PromptRejected),
        (text_prompt(VOCAB_SIZE), PromptRejected),
        (text_prompt(*[1] * 65), CacheOverflow),
    ]:
        with pytest.raises(error):
            engine.open(prompt)
    assert not reader.asked


def test_a_prompt_without_a_finite_logit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, reader = start()
    monkeypatch.setattr(reader, "read", lambda questions: [np.full((1, VOCAB_SIZE), np.nan, dtype=np.float32)])
    with pytest.raises(PromptRejected, match="no finite logits"):
        engine.open(text_prompt(1))


def test_a_slots_rows_are_asked_for_as_wide_as_it_was_opened() -> None:
    engine, reader = start(max_logits=8)
    slot = engine.open_narrow(text_prompt(1), 8).slot
    engine.extend([Extension.chain(slot, [2])])
    assert [question.num_logits for asked in reader.asked for question in asked] == [8, 8]


@pytest.mark.parametrize(("num_logits", "wanted"), [(9, "the 9 largest logits"), (None, "the whole vocabulary")])
def test_what_a_reader_cannot_tell_is_refused_with_what_it_can(num_logits: int | None, wanted: str) -> None:
    engine, reader = start(max_logits=8)
    with pytest.raises(EngineError, match=f"at most the 8 largest.*{wanted}.*top_k of at most 8"):
        engine.open_narrow(text_prompt(1), num_logits)
    assert not reader.asked


def test_a_vocabulary_that_a_reader_can_tell_whole_is_not_refused() -> None:
    engine, _ = start(max_logits=VOCAB_SIZE)
    assert engine.open(text_prompt(1)).slot == 0


KNOWN = 14  # of the device; the others are often the largest


class NarrowReader(MadeUpReader):
    """Tells as many of the largest logits as it is asked for, and of ids that the device lacks large ones."""

    def read(self, questions: Sequence[TextQuestion]) -> list[Floats]:
        answers = super().read(questions)
        for question, rows in zip(questions, answers, strict=True):
            rows[:, KNOWN:] += 2.0
            edge = np.sort(rows, axis=1)[:, -question.num_asked(VOCAB_SIZE)][:, None]
            rows[rows < edge] = -np.inf
        return answers


@pytest.mark.parametrize("max_logits", [None, VOCAB_SIZE])
@pytest.mark.parametrize("num_logits", [1, 4, 14])
def test_the_largest_logits_are_those_of_ids_that_the_device_knows(
    num_logits: int, max_logits: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_engine, "TIE_MARGIN", 0)
    reader = NarrowReader(max_logits)
    engine = TextEngine(reader, word_vocabulary(VOCAB_SIZE), EngineLimits(1, max_length=64))
    slot, row = engine.open_narrow(text_prompt(1), num_logits, KNOWN)
    rows = [row, *engine.extend([Extension(slot, [2, 3, 4, 5], TreeShape((0, 0, 1, 1)))])[0]]
    texts = [(1,), (1, 2), (1, 3), (1, 2, 4), (1, 2, 5)]
    for told, text in zip(rows, texts, strict=True):
        true = row_after(text)[:KNOWN]
        largest = np.argsort(-true)[:num_logits]
        assert told[largest].tolist() == true[largest].tolist()
    num_texts = sum(len(asked) for asked in reader.asked)
    assert num_texts > 3  # the row after the prompt and three branches: of some of them more was asked for


def test_a_reader_that_cannot_tell_enough_of_what_the_device_knows_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_engine, "TIE_MARGIN", 0)
    engine = TextEngine(NarrowReader(max_logits=4), word_vocabulary(VOCAB_SIZE), EngineLimits(1, max_length=64))
    with pytest.raises(EngineError, match=r"at most the 4 largest logits .* needs 4 more: use a smaller top_k or rank"):
        engine.open_narrow(text_prompt(1), 4, KNOWN)
    assert engine.open_narrow(text_prompt(1), 4).slot == 0


def test_a_device_with_a_smaller_vocabulary_gets_the_text_of_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_engine, "TIE_MARGIN", 0)
    sampling = SamplingParams(max_tokens=12)
    engine = TextEngine(NarrowReader(), word_vocabulary(VOCAB_SIZE), EngineLimits(1, max_length=64))
    linked = Linked(EdgeSession(word_vocabulary(KNOWN), text_prompt(1), sampling, Rank(3)), engine)
    linked.open()
    linked.session.offer([int(np.argsort(-row_after([1])[:KNOWN])[3])])  # its rank is 4
    linked.send_due()
    linked.session.give_credit(12)
    linked.send_due()
    linked.settle()
    text = [1]
    for _ in range(12):
        text.append(int(row_after(text)[:KNOWN].argmax()))
    assert list(linked.session.token_ids) == text[1:]
