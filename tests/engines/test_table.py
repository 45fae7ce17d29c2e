import numpy as np
import pytest

from skydraft.core import Prompt, TensorSegment, TokenSegment
from skydraft.engines.base import EngineLimits, Extension
from skydraft.engines.emulated.table import TableEngine
from skydraft.engines.emulated.table_spec import load_table, parse_table, random_table
from skydraft.engines.load import load_tokenizer
from skydraft.engines.prompt_checks import text_ids
from skydraft.errors import EngineError, ModelLoadError, PromptRejected
from skydraft.text.vocabulary import fit
from tests.engines import contract
from tests.engines.operations import FromScratch, RandomOperations, text_prompt

LIMITS = EngineLimits(num_slots=4, max_length=64)
LOG_MEL = TensorSegment("log_mel", "float16", (2, 3), bytes(12))


def scan(table: np.ndarray, order: int, token_ids: list[int]) -> np.ndarray:
    """The table's rows for each prefix, by the definition."""
    vocab_size = table.shape[1]
    rows = []
    for end in range(1, len(token_ids) + 1):
        context = ([0] * order + token_ids[:end])[-order:]
        rows.append(sum(token * vocab_size**j for j, token in enumerate(reversed(context))))
    return table[rows]


def plain(table: np.ndarray, order: int) -> FromScratch:
    def from_scratch(prompt: Prompt, token_ids: list[int]) -> np.ndarray:
        before = text_ids(prompt)
        return scan(table, order, before + token_ids)[len(before) - 1 :]

    return from_scratch


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("seed", [1, 2])
def test_rows_are_those_of_the_last_tokens_through_random_operations(order: int, seed: int) -> None:
    table = np.random.default_rng(0).standard_normal((12**order, 12)).astype(np.float32)
    engine = TableEngine(table, order, limits=LIMITS)
    RandomOperations(engine, plain(table, order), seed, vocab_size=12, tolerance=0).run(400)


def test_a_hashed_table_depends_on_the_last_tokens_only() -> None:
    engine = load_table("table:vocab=500,order=3", LIMITS)
    fresh = load_table("table:vocab=500,order=3", LIMITS)

    def from_scratch(prompt: Prompt, token_ids: list[int]) -> np.ndarray:
        slot, logits = fresh.open(prompt)
        rows = [logits[None]] + ([fresh.extend([Extension.chain(slot, token_ids)])[0]] if token_ids else [])
        fresh.close(slot)
        return np.concatenate(rows)

    RandomOperations(engine, from_scratch, 3, vocab_size=500, tolerance=0).run(200)
    contexts = [(7, 9), (9, 7), (7, 7), (9, 9), (8, 8)]
    rows = [fresh.open(Prompt((TokenSegment((1, *context)),))) for context in contexts[:4]]
    assert len({row.logits.tobytes() for row in rows}) == 4


def test_a_single_row_is_a_view_whatever_the_size_of_the_vocabulary() -> None:
    engine = load_table("table:vocab=50000", LIMITS)
    slot, logits = engine.open(text_prompt(3))
    (rows,) = engine.extend([Extension.chain(slot, [4])])
    assert not logits.flags.owndata
    assert not rows.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 0.0


def test_tensors_are_rejected_unless_asked_for() -> None:
    prompt = Prompt((TokenSegment((1,)), LOG_MEL))
    with pytest.raises(PromptRejected, match="'log_mel'"):
        load_table("table:", LIMITS).open(prompt)
    load_table("table:tensors=1", LIMITS).open(prompt)


def test_evidence_changes_the_logits() -> None:
    engine = load_table("table:tensors=1", LIMITS)
    other = TensorSegment("log_mel", "float16", (2, 3), bytes(11) + b"\x01")
    prompts = [Prompt((TokenSegment((1,)), *tensors)) for tensors in ((), (LOG_MEL,), (other,), (LOG_MEL,))]
    slots, logits = zip(*(engine.open(prompt) for prompt in prompts), strict=True)
    assert not np.array_equal(logits[0], logits[1])
    assert not np.array_equal(logits[1], logits[2])
    assert np.array_equal(logits[1], logits[3])
    heard, silent = (engine.extend([Extension.chain(slot, [5])])[0] for slot in (slots[1], slots[0]))
    assert not np.array_equal(heard, silent)


def test_an_overflow_leaves_all_slots_as_they_were() -> None:
    table = random_table(parse_table("table:order=2"))
    engine = TableEngine(table, 2, limits=EngineLimits(2, 6))
    contract.check_that_an_overflow_changes_no_slot(engine, plain(table, 2), 0)


@pytest.mark.parametrize("check", contract.OF_SUBTREES)
def test_a_subtree_may_be_kept(check: contract.Check) -> None:
    table = random_table(parse_table("table:order=2"))
    check(TableEngine(table, 2, limits=LIMITS), plain(table, 2), 0)


def test_a_prompt_begins_with_what_another_slot_has_read() -> None:
    engine, prompts = load_table("table:vocab=64,order=2", EngineLimits(2, 20)), (text_prompt(1, 2, 3), [1, 2, 3, 4, 5])
    contract.check_that_a_prompt_begins_with_what_another_slot_has_read(engine, prompts[0], text_prompt(*prompts[1]), 2)


def test_prompts_without_tokens_or_beyond_the_vocabulary_are_rejected_and_take_no_slot() -> None:
    contract.check_that_rejected_prompts_take_no_slot(load_table("table:", EngineLimits(1, 8)))


def test_a_token_beyond_the_vocabulary_cannot_be_appended() -> None:
    engine = load_table("table:", LIMITS)
    slot = engine.open(text_prompt(1)).slot
    with pytest.raises(EngineError, match="token id 64 is outside of the model's vocabulary of 64 ids"):
        engine.extend([Extension.chain(slot, [64])])


def test_a_table_is_the_same_in_every_process() -> None:
    first, second = (random_table(parse_table("table:vocab=64,seed=3,sharpness=2")) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == (64, 64)
    assert 1.9 < first.std() < 2.1


def test_noise_makes_a_draft_that_resembles_its_target() -> None:
    target, near, far = (random_table(parse_table(f"table:seed=3,noise={noise}")) for noise in (0, 0.3, 3))
    agreed = [(target.argmax(1) == draft.argmax(1)).mean() for draft in (near, far)]
    assert agreed[0] > 0.7 > 0.5 > agreed[1]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("table:vocab=x", "Expected `int`"),
        ("table:colour=3", "unknown field `colour`"),
        ("table:vocab=1", "vocab is 1"),
        ("table:vocab=99999999", "vocab is 99999999"),
        ("table:order=9", "order is 9"),
        ("table:end=64", "end is 64"),
        ("table:seed=-1", "a seed is -1"),
        ("table:sharpness", "Expected `float`"),
        ("table:noise=nan", "noise is nan"),
        ("table:vocab= 64", "Expected `int`"),
        ("table:vocab=6_4", "Expected `int`"),
        ("table:sharpness=\u0662", "Expected `float`"),
    ],
)
def test_wrong_descriptions_name_what_is_wrong(model: str, reason: str) -> None:
    with pytest.raises(ModelLoadError, match=reason):
        load_table(model, LIMITS)


def test_tables_of_different_sizes_share_their_first_words() -> None:
    small, large = (load_table(f"table:vocab={size},end=5", LIMITS).vocabulary for size in (60, 9000))
    assert fit(small, large) == 60
    assert len(set(large.tokens)) == 9000
    assert small.end_ids == (5,)


def test_a_table_of_letters_reads_and_spells_every_character() -> None:
    tokenizer = load_tokenizer("table:vocab=97,letters=1,end=96", "draft")
    text = '{"a": [1, 2]}\n~'
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode((*tokenizer.encode_plain("\u00e9"), 96)) == "?"
    assert tokenizer.token_id("{") == tokenizer.encode("{")[0]
    assert tokenizer.spelling()[96] == b"\xff"
    for wrong in ("table:vocab=60,letters=1", "table:vocab=97,letters=1,end=5"):
        with pytest.raises(ModelLoadError, match="vocab is 60|end is 5"):
            load_tokenizer(wrong, "draft")
