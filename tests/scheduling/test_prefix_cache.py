"""What was read of prompts serves those that begin alike: within a scope, within a size, and to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from skydraft.core import Exact, Prompt, SamplingParams, TensorSegment, TokenSegment
from skydraft.decoding.cloud_session import CloudSession, SessionTerms
from skydraft.engines.base import ChunkedEngine, Engine, EngineLimits, PrefixReuse, PromptChunk
from skydraft.engines.emulated.table import TableEngine
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.protocol import messages
from skydraft.scheduling.batcher import Batcher
from skydraft.scheduling.prefix_cache import KEPT_S, PrefixCache, make_prefix_cache
from tests.conversations import LIMITS, TURNS, Conversation
from tests.engines.operations import text_prompt, whole_prompts
from tests.linked import CountingTable, cloud_only, counting

BLOCK = 32
BYTES = BLOCK * 8  # of a block of the table
IDS = list(range(8, 60)) * 6
END = 61
ROWS = np.random.default_rng(3).standard_normal((4096, 64), dtype=np.float32) * 2


def engine(num_slots: int = 8) -> CountingTable:
    """Rows depend on all tokens before."""
    return counting(TableEngine(ROWS, order=400, limits=EngineLimits(num_slots, 400)))


class PromptsOnly(CountingTable):
    """One that takes no text, and no less than 48 tokens."""


def of_prompts_only(num_slots: int = 8) -> PromptsOnly:
    made = PromptsOnly(ROWS, 400, limits=EngineLimits(num_slots, 400))
    made.prefix_reuse = PrefixReuse(48, takes_text=False)
    return made


def of_messages(num_slots: int = 8) -> PromptsOnly:
    """One whose pieces end with messages too."""
    made = of_prompts_only(num_slots)
    made.prefix_reuse = PrefixReuse(48, frozenset({END}), takes_text=False)
    return made


class Reader:
    """Reads prompts through a cache, one after the other, as slots are filled."""

    def __init__(self, max_bytes: int = 2**20) -> None:
        self.engine = engine()
        self.now_s = 0.0
        self.cache = PrefixCache(self.engine, max_bytes, lambda: self.now_s)

    def read(self, prompt: Prompt, scope: str = "a") -> int:
        """Returns how many tokens need not be read."""
        num_tokens, keys = self.engine.measure(prompt), self.cache.keys(prompt)
        found = self.cache.find(scope, keys, num_tokens)
        slot, num_reused = self.engine.reserve(prompt, found), sum(piece.num_tokens for piece in found)
        (rows,) = self.engine.extend([PromptChunk(slot, num_tokens - num_reused)])
        np.testing.assert_array_equal(rows[0], engine().open(prompt).logits)
        self.cache.keep(scope, keys, slot)
        self.engine.close(slot)
        return num_reused


def test_a_prompt_begins_with_the_whole_blocks_that_an_earlier_one_has_read() -> None:
    reader = Reader()
    assert reader.read(text_prompt(*IDS[:100])) == 0
    assert reader.read(text_prompt(*IDS[:90], 9, 9)) == 64
    assert reader.read(text_prompt(*IDS[:31], 9, *IDS[32:100])) == 0
    assert reader.read(text_prompt(*IDS[1:100])) == 0
    assert reader.read(text_prompt(*IDS[:200])) == 96
    assert reader.read(text_prompt(*IDS[:200])) == 192


def test_the_last_token_of_a_prompt_is_always_read() -> None:
    reader = Reader()
    assert [reader.read(text_prompt(*IDS[:length])) for length in (64, 64, 65, 96, 96)] == [0, 32, 64, 64, 64]


def test_scopes_share_nothing() -> None:
    reader, prompt = Reader(), text_prompt(*IDS[:100])
    assert [reader.read(prompt, scope) for scope in ("a", "b", "", "b", "a")] == [0, 0, 0, 96, 96]


def test_what_another_scope_has_of_the_same_prompt_takes_no_memory_from_one() -> None:
    reader = Reader(4 * BYTES)
    prompt, other = text_prompt(*IDS[:129]), text_prompt(*IDS[1:130])
    reader.read(prompt, "a")
    as_same = [reader.read(prompt, "b") for _ in range(4)]
    reader = Reader(4 * BYTES)
    reader.read(other, "a")
    assert as_same == [reader.read(prompt, "b") for _ in range(4)]
    assert as_same[-1] >= 64


def test_prompts_do_not_wait_for_what_would_not_be_kept() -> None:
    reader = Reader(4 * BYTES)
    reader.read(text_prompt(*IDS[:129]), "a")
    assert reader.cache.has_room("a", 4 * BLOCK)
    assert not reader.cache.has_room("a", 5 * BLOCK)
    assert reader.cache.has_room("b", 2 * BLOCK)
    assert not reader.cache.has_room("b", 3 * BLOCK)  # a has its share too


def test_prompts_with_other_tensors_share_nothing() -> None:
    reader = Reader()
    reader.engine._accepts_tensors = True
    tensors = [TensorSegment("log_mel", "float16", (1, 1), data) for data in (b"ab", b"ac")]
    first, second = (Prompt((tensor, TokenSegment(tuple(IDS[:40])))) for tensor in tensors)
    keys = [reader.cache.keys(prompt) for prompt in (first, second, text_prompt(*IDS[:40]), first)]
    assert keys[0] == keys[3]
    assert len({key for each in keys for key in each}) == 3


def test_what_was_not_used_for_the_longest_time_is_forgotten_and_never_what_others_begin_with() -> None:
    reader = Reader(max_bytes=5 * BYTES)
    reader.read(text_prompt(*IDS[:96]))
    reader.read(text_prompt(*IDS[:32], *IDS[40:104]))
    assert reader.cache.num_bytes == 5 * BYTES
    assert reader.read(text_prompt(*IDS[:96], 9)) == 96
    reader.read(text_prompt(*IDS[7:39]))  # the last block of the second goes
    assert reader.cache.num_bytes == 5 * BYTES
    assert reader.cache.num_kept("a", reader.cache.keys(text_prompt(*IDS[:32], *IDS[40:104]))) == 2
    assert reader.cache.num_kept("a", reader.cache.keys(text_prompt(*IDS[:96]))) == 3


def test_the_scope_that_has_most_makes_room() -> None:
    reader = Reader(max_bytes=4 * BYTES)
    reader.read(text_prompt(*IDS[:32]), "small")
    for shift in range(9):
        reader.read(text_prompt(*IDS[shift : shift + 96]), "large")
    assert reader.read(text_prompt(*IDS[:32], 9), "small") == 32


@pytest.mark.parametrize("num_blocks", [0.5, 1, 2.5])
def test_a_prompt_that_is_larger_than_the_memory_leaves_its_beginning(num_blocks: float) -> None:
    reader = Reader(max_bytes=int(num_blocks * BYTES))
    for _ in range(2):
        num_reused = reader.read(text_prompt(*IDS[:300]))
        assert reader.cache.num_bytes == int(num_blocks) * BYTES
    assert num_reused == int(num_blocks) * BLOCK


def test_what_was_not_used_for_an_hour_is_forgotten() -> None:
    reader = Reader()
    reader.read(text_prompt(*IDS[:96]))
    reader.now_s = KEPT_S
    reader.read(text_prompt(*IDS[:64], 9))
    reader.now_s = KEPT_S + 1
    reader.cache.expire()
    assert reader.cache.num_bytes == 2 * BYTES
    reader.now_s = 3 * KEPT_S
    reader.cache.expire()
    assert reader.cache.num_bytes == 0
    assert not reader.cache._scopes


def ends(target: ChunkedEngine, ids: Sequence[int]) -> list[int]:
    return [key.end for key in PrefixCache(target, 1).keys_of_ids(ids)]


def test_blocks_are_the_pieces_that_an_engine_takes() -> None:
    assert ends(engine(), IDS[:100]) == [BLOCK, 2 * BLOCK, 3 * BLOCK]
    assert ends(of_prompts_only(), IDS[:100]) == [48, 96]
    assert ends(of_messages(), [*IDS[:20], END, *IDS[:10], END, *IDS[:48], 9]) == [21, 69]
    embedded_target = embedded()
    assert isinstance(embedded_target, ChunkedEngine)
    end = embedded_target.vocabulary.end_ids[0]
    assert ends(embedded_target, [*IDS[:20], end, *IDS[:40]]) == [21, 21 + BLOCK]


def test_a_system_message_of_a_piece_of_its_own_is_read_once() -> None:
    target = of_messages()
    batcher = batcher_of(target)
    system = [*IDS[:20], END]
    assert run(batcher, admitted(batcher, [*system, 9, 10])) == (23, 0)
    assert run(batcher, admitted(batcher, [*system, 11, 12, 13])) == (3, 21)
    assert run(batcher, admitted(batcher, [*system[:-1], 11, 12, 13])) == (23, 0)


def test_nothing_is_kept_where_there_is_no_room_or_no_way() -> None:
    assert make_prefix_cache(engine(), 0) is None
    assert make_prefix_cache(whole_prompts(engine()), 2**20) is None


# In a batcher


def batcher_of(target: Engine, max_bytes: int = 2**20, **settings: int) -> Batcher:
    return Batcher(target, prefixes=make_prefix_cache(target, max_bytes), **settings)


def admitted(batcher: Batcher, ids: Iterable[int], scope: str = "", seed: int = 1, credit: int = 1000) -> CloudSession:
    prompt, sampling = text_prompt(*ids), SamplingParams(temperature=0.8, seed=seed, max_tokens=20)
    session = CloudSession(SessionTerms(prompt, sampling, Exact(), 64, 64), LIMITS)
    batcher.admit(session, scope, batcher.measure(prompt), scope)
    session.receive(messages.Generate(credit))
    return session


def run(batcher: Batcher, *sessions: CloudSession) -> tuple[int, int]:
    """To the end of all texts, which are the cloud's own; returns tokens of prompts read and reused."""
    num_read = num_reused = 0
    while batcher.is_busy:
        done = batcher.step()
        num_read, num_reused = num_read + done.num_prompt_read, num_reused + sum(done.reused.values())
    for session in sessions:
        assert list(session.token_ids) == cloud_only(engine(), session.terms.sampling, session.terms.prompt)
    return num_read, num_reused


def test_a_system_message_is_read_once() -> None:
    target = engine()
    batcher = batcher_of(target)
    assert run(batcher, admitted(batcher, [*IDS[:100], 9, 10])) == (102, 0)
    assert run(batcher, admitted(batcher, [*IDS[:100], 11, 12, 13])) == (103 - 96, 96)
    assert run(batcher, admitted(batcher, [*IDS[:100], 14], scope="other")) == (101, 0)
    assert target.num_prompt_tokens == 102 + 7 + 101


def test_prompts_that_come_together_wait_for_the_one_that_reads_what_they_share() -> None:
    target = engine()
    batcher = batcher_of(target, prefill_tokens=40)
    texts = [admitted(batcher, IDS[:150], seed=seed) for seed in range(6)]
    others = [admitted(batcher, IDS[:150], scope="other", seed=7), admitted(batcher, [9, *IDS[:150]], seed=8)]
    run(batcher, *texts, *others)
    assert target.num_prompt_tokens == 150 + 5 * (150 - 128) + 150 + 151


def test_one_that_reads_and_fails_leaves_the_prompt_to_those_that_wait() -> None:
    class Fragile(CountingTable):
        has_failed = False

        def extend(self, extensions):  # type: ignore[no-untyped-def]
            if not self.has_failed and self.num_prompt_tokens >= 80:
                self.has_failed = True
                raise RuntimeError("the device failed")
            return super().extend(extensions)

    batcher = batcher_of(Fragile(ROWS, 400, limits=EngineLimits(4, 400)), prefill_tokens=40)
    texts = [admitted(batcher, IDS[:150], seed=seed) for seed in range(3)]
    run(batcher)
    assert [session.is_complete for session in texts] == [False, True, True]


def test_evicted_sessions_are_filled_from_what_was_read() -> None:
    target = engine(num_slots=1)
    batcher = batcher_of(target)
    first = admitted(batcher, IDS[:100], credit=10)
    run(batcher)
    assert run(batcher, admitted(batcher, IDS[1:100])) == (99, 0)
    assert first.kv_length == 0
    first.receive(messages.Generate(1000))
    batcher.wake(first)
    assert run(batcher, first) == (4, 96)


def test_a_failure_to_keep_what_was_read_ends_no_text(caplog: pytest.LogCaptureFixture) -> None:
    class NoMemory(CountingTable):
        def copy_out(self, slot, start, end):  # type: ignore[no-untyped-def]
            raise MemoryError

    batcher = batcher_of(NoMemory(ROWS, 400, limits=EngineLimits(4, 400)))
    for _ in range(2):
        assert run(batcher, admitted(batcher, IDS[:100])) == (100, 0)
    assert "could not be kept" in caplog.text


Make = Callable[[], Engine]


def embedded() -> Engine:
    return load_engine("embedded", "target", EngineSettings(num_slots=2, max_length=400))


@pytest.mark.parametrize("make", [engine, of_prompts_only, of_messages, embedded])
def test_hybrid_texts_of_a_conversation_are_the_clouds_own(make: Make) -> None:
    target, alone = make(), make()
    batcher = batcher_of(target, prefill_tokens=30)
    talk = Conversation(batcher, alone, IDS[:70], seed=5, end=[END])
    for _ in range(TURNS):
        talk.turn()


@pytest.mark.parametrize(("make", "turns"), [(engine, [82, 18, 18, 18]), (of_prompts_only, [82, 66, 50, 34])])
def test_a_turn_reads_what_is_new_and_of_a_target_that_takes_no_text_the_last_answer_too(
    make: Callable[[], CountingTable], turns: list[int]
) -> None:
    target = make()
    talk = Conversation(batcher_of(target), engine(), IDS[:70], seed=5)
    counts = [0]
    for _ in range(TURNS):
        talk.turn()
        counts.append(target.num_prompt_tokens)
    assert [after - before for before, after in pairwise(counts)] == turns


@pytest.mark.parametrize("make", [engine, of_prompts_only, of_messages])
@pytest.mark.parametrize("max_swap_bytes", [0, 2**20])
@pytest.mark.parametrize("max_bytes", [2 * BYTES, 2**20])
def test_many_conversations_under_pressure_are_the_clouds_own(
    make: Callable[[int], Engine], max_swap_bytes: int, max_bytes: int
) -> None:
    target, alone, random = make(2), make(2), Random(7)
    batcher = batcher_of(target, max_bytes, max_swap_bytes=max_swap_bytes, prefill_tokens=50)
    idle = [admitted(batcher, IDS[:40], seed=seed) for seed in range(3)]
    run(batcher, *idle)  # they keep slots, and lose them
    talks = [Conversation(batcher, alone, IDS[: 40 + 8 * (seed % 2)], seed) for seed in range(4)]
    for _ in range(3 * len(talks)):
        random.choice(talks).turn(scope=random.choice("ab"))
