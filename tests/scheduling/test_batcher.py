"""One engine for many sessions: what a pass takes in, who waits, and who loses a slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise

import pytest

from skydraft.core import Draft, Exact, Prompt, SamplingParams, TokenSegment
from skydraft.decoding.cloud_session import CloudSession, SessionTerms
from skydraft.engines.base import ChunkedEngine, Extension, PromptChunk
from skydraft.engines.emulated.table import Floats, TableEngine
from skydraft.errors import EngineError
from skydraft.protocol import messages, offers
from skydraft.scheduling.batcher import Batcher, ForwardPass
from tests.effort import effort_of
from tests.engines.operations import whole_prompts
from tests.linked import PROMPT, cloud_only, counting, table

MODEL = "table:vocab=8,seed=5,order=2"
WIDE_OPEN = messages.Limits(300_000, 64, 8)


def engine(num_slots: int = 8, max_length: int = 4096) -> TableEngine:
    return table(MODEL, num_slots, max_length)


def prompt(num_tokens: int) -> Prompt:
    return Prompt((TokenSegment(tuple(1 + i % 7 for i in range(num_tokens))),))


def new_session(seed: int = 0, max_tokens: int = 24, prompt: Prompt = PROMPT) -> CloudSession:
    sampling = SamplingParams(temperature=0.8, seed=seed, max_tokens=max_tokens)
    return CloudSession(SessionTerms(prompt, sampling, Exact(), 8, 8), WIDE_OPEN)


def admitted(batcher: Batcher, session: CloudSession, owner: str = "") -> CloudSession:
    batcher.admit(session, owner, batcher.measure(session.terms.prompt))
    return session


def credit(batcher: Batcher, session: CloudSession, up_to: int = 1000) -> None:
    session.receive(messages.Generate(up_to))
    batcher.wake(session)


def offer(batcher: Batcher, session: CloudSession, token_ids: Iterable[int], num_forced: int = 0) -> None:
    draft = Draft.chain(len(session.token_ids), tuple(token_ids), num_forced=num_forced)
    session.receive(offers.to_wire(draft, 0, 8, Exact()))
    batcher.wake(session)


def passes(batcher: Batcher) -> list[ForwardPass]:
    """All until nothing waits."""
    done = []
    while batcher.is_busy:
        done.append(batcher.step())
        assert len(done) < 10_000
    return done


def alone(session: CloudSession) -> list[int]:
    return cloud_only(engine(), session.terms.sampling, session.terms.prompt)


def faults(done: Iterable[ForwardPass]) -> dict[CloudSession, messages.Fault]:
    said = [(session, outcome.message) for one in done for session, outcome in one.outcomes.items()]
    return {session: message for session, message in said if isinstance(message, messages.Fault)}


def test_prompts_offers_and_credit_of_many_sessions_are_one_forward_pass() -> None:
    target = counting(engine())
    batcher = Batcher(target)
    old = [admitted(batcher, new_session(seed)) for seed in (1, 2)]
    passes(batcher)
    before = target.num_passes
    offer(batcher, old[0], [1, 2, 3])
    credit(batcher, old[1], 2)
    batcher.step()  # the first token on credit needs no pass, and is said at once
    admitted(batcher, new_session(3))
    offer(batcher, old[0], [1, 2, 3])
    done = batcher.step()
    assert target.num_passes == before + 2
    assert done.num_sessions == 3
    assert {type(outcome.message) for outcome in done.outcomes.values()} == {messages.Tokens, messages.Verdict}
    assert sorted(outcome.num_offered for outcome in done.outcomes.values()) == [0, 3]


def test_a_long_prompt_holds_up_nobody_by_more_than_its_chunk() -> None:
    batcher = Batcher(engine(), max_positions=256, prefill_tokens=100)
    writer = admitted(batcher, new_session(1, max_tokens=40))
    passes(batcher)
    credit(batcher, writer)
    batcher.step()
    newcomer = admitted(batcher, new_session(2, prompt=prompt(1000)))
    reading = [batcher.step() for _ in range(10)]
    assert [one.num_positions for one in reading] == [101] * 10
    assert all(len(one.outcomes) == 1 for one in reading)
    assert not newcomer.has_work
    credit(batcher, newcomer)
    passes(batcher)
    for session in (writer, newcomer):
        assert list(session.token_ids) == alone(session)


def test_when_all_who_waited_were_served_nothing_is_owed() -> None:
    batcher = Batcher(engine(), max_positions=12)
    first, second = (admitted(batcher, new_session(seed), owner=str(seed)) for seed in (1, 2))
    passes(batcher)
    offer(batcher, first, [1] * 9)
    offer(batcher, second, [1])
    assert len(batcher.step().outcomes) == 2
    offer(batcher, first, [1] * 9)
    offer(batcher, second, [1] * 9)
    assert list(batcher.step().outcomes) == [first]


def test_a_pass_takes_no_more_positions_than_it_may_unless_one_offer_is_longer() -> None:
    batcher = Batcher(engine(), max_positions=20, prefill_tokens=5)
    sessions = [admitted(batcher, new_session(seed)) for seed in range(6)]
    passes(batcher)
    for session in sessions:
        offer(batcher, session, [1] * 7)
    offer(batcher, sessions[5], [2] * 30)  # the two offers are judged as one, of 37 positions
    done = passes(batcher)
    assert [one.num_positions for one in done] == [14, 14, 7, 37]
    assert sum(len(one.outcomes) for one in done) == 6


def test_a_key_with_many_sessions_does_not_slow_down_a_key_with_one() -> None:
    batcher = Batcher(engine(40), max_positions=4, prefill_tokens=4)
    many = [admitted(batcher, new_session(seed), "many") for seed in range(30)]
    one = admitted(batcher, new_session(99), "one")
    passes(batcher)
    for session in (*many, one):
        credit(batcher, session)
    num_answers = 0
    while len(one.token_ids) < 24:
        num_answers += sum(session is one for session in batcher.step().outcomes)
        assert batcher._number < 150
    assert num_answers == 24
    passes(batcher)
    assert all(list(session.token_ids) == alone(session) for session in (*many, one))


def test_the_session_that_has_been_idle_longest_loses_its_slot() -> None:
    target = counting(engine(2))
    batcher = Batcher(target)
    first, second = (admitted(batcher, new_session(seed)) for seed in (1, 2))
    passes(batcher)
    offer(batcher, first, [1])
    passes(batcher)
    third = admitted(batcher, new_session(3))
    assert sum(one.num_evicted for one in passes(batcher)) == 1
    before = target.num_prompt_tokens
    offer(batcher, first, [1])
    offer(batcher, third, [1])
    passes(batcher)
    assert target.num_prompt_tokens == before  # these two still have theirs
    offer(batcher, second, [1])
    done = passes(batcher)
    assert target.num_prompt_tokens == before + 3
    assert sum(one.num_restored for one in done) == 1


def test_a_session_with_work_under_way_keeps_its_slot_until_it_has_had_its_turn() -> None:
    batcher = Batcher(engine(1))
    first, second = (admitted(batcher, new_session(seed, max_tokens=300)) for seed in (1, 2))
    for session in (first, second):
        credit(batcher, session)
    done = passes(batcher)
    assert not faults(done)
    speakers = [next(iter(one.outcomes)) for one in done if one.outcomes]
    turns = 1 + sum(a is not b for a, b in pairwise(speakers))
    assert 4 <= turns <= 10  # each at least as long as what had to be read again for it
    for session in (first, second):
        assert list(session.token_ids) == alone(session)


def test_a_text_that_was_evicted_is_read_again_in_pieces_and_goes_on() -> None:
    batcher = Batcher(engine(1), max_positions=64, prefill_tokens=16)
    first = admitted(batcher, new_session(1, max_tokens=200, prompt=prompt(50)))
    credit(batcher, first, 100)
    passes(batcher)
    admitted(batcher, new_session(2))
    passes(batcher)
    assert first.kv_length == 0
    credit(batcher, first, 200)
    done = passes(batcher)
    assert max(one.num_positions for one in done) <= 32
    assert sum(one.num_restored for one in done) == 1
    assert list(first.token_ids) == alone(first)


def test_a_slot_that_was_swapped_out_is_not_read_again() -> None:
    target = counting(engine(1))
    batcher = Batcher(target, max_positions=64, prefill_tokens=16, max_swap_bytes=2**20)
    sessions = [admitted(batcher, new_session(seed, max_tokens=200, prompt=prompt(50))) for seed in range(4)]
    for session in sessions:
        credit(batcher, session)
    done = passes(batcher)
    assert not faults(done)
    assert sum(one.num_restored for one in done) >= 8  # a slot of its own for each, several times
    assert target.num_prompt_tokens == 4 * 50
    assert sum(one.num_positions for one in done) == 4 * (50 + 199)  # the last token of a text is read by nobody
    for session in sessions:
        assert list(session.token_ids) == alone(session)


def test_beyond_the_memory_for_swapped_slots_the_first_one_is_forgotten() -> None:
    target = counting(engine(1))
    batcher = Batcher(target, max_swap_bytes=2 * 8 * (2 + 60))  # numbers of 8 bytes, two of which stand before a text
    first, second, third = (admitted(batcher, new_session(seed, prompt=prompt(50))) for seed in range(3))
    passes(batcher)
    admitted(batcher, new_session(3))
    passes(batcher)
    assert [session.kv_length for session in (first, second, third)] == [0, 0, 0]
    assert target.num_prompt_tokens == 3 * 50 + 3
    for session in (third, second, first):
        credit(batcher, session)
        passes(batcher)
    assert target.num_prompt_tokens == 3 * 50 + 3 + 50  # the first one's was read again
    batcher.release(first)
    assert list(second.token_ids) == alone(second)


def test_a_cloud_without_a_memory_is_told_a_long_text_in_pieces() -> None:
    batcher = Batcher(engine(), max_positions=64, prefill_tokens=16)
    truth = alone(new_session(1, max_tokens=500))
    session = admitted(batcher, new_session(1, max_tokens=500))
    offer(batcher, session, truth[:400], num_forced=398)
    done = passes(batcher)
    assert max(one.num_positions for one in done) <= 32
    (answer,) = [outcome for one in done for outcome in one.outcomes.values()]
    assert answer.message == messages.Verdict(401, truth[400])
    assert (answer.num_emitted, answer.num_offered, answer.num_accepted) == (3, 2, 2)
    assert list(session.token_ids) == truth[:401]


def test_a_long_offer_is_judged_and_not_taken_for_what_is_told() -> None:
    batcher = Batcher(engine())
    session = admitted(batcher, new_session(1, max_tokens=100))
    offer(batcher, session, [(token_id + 1) % 8 for token_id in alone(session)[:60]])
    (answer,) = [outcome for one in passes(batcher) for outcome in one.outcomes.values()]
    assert answer.message == messages.Verdict(1, alone(session)[0])


def test_a_told_text_with_a_token_that_the_target_does_not_know_is_refused_however_long() -> None:
    batcher = Batcher(engine())
    terms = new_session(1, max_tokens=100).terms._replace(num_edge_ids=300)
    session = admitted(batcher, CloudSession(terms, WIDE_OPEN))
    draft = Draft.chain(0, (1, 2, 299) * 20, num_forced=60)
    session.receive(offers.to_wire(draft, 0, 300, Exact()))
    batcher.wake(session)
    ((_, fault),) = faults(passes(batcher)).items()
    assert "299" in fault.sentence
    assert list(session.token_ids) == []


def test_a_text_that_is_told_to_its_end_is_not_read_on() -> None:
    session = new_session(1, max_tokens=100)
    truth = alone(session)
    batcher = Batcher(engine())
    admitted(batcher, session)
    offer(batcher, session, truth, num_forced=100)
    (answer,) = [outcome for one in passes(batcher) for outcome in one.outcomes.values()]
    assert answer.message == messages.Verdict(100)


def test_a_session_of_which_a_token_is_unknown_falls_alone() -> None:
    batcher = Batcher(engine())
    good, bad = (admitted(batcher, new_session(seed)) for seed in (1, 2))
    bad._log.append(99)  # as a device with a larger vocabulary may tell it
    for session in (good, bad):
        credit(batcher, session)
    ((session, fault),) = faults(passes(batcher)).items()
    assert (session, fault.code) == (bad, messages.FaultCode.LIMIT)
    assert list(batcher._users) == [good]
    assert list(good.token_ids) == alone(good)


def test_memory_of_a_pass_does_not_outlive_it() -> None:
    """A session may keep a row; a view would keep the rows of all."""

    class Recorder(TableEngine):
        def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Floats]:
            self.last = [rows.copy() for rows in super().extend(extensions)]
            return self.last

    spec = engine(4, 100)
    batcher = Batcher(recorder := Recorder(spec._table, 2, limits=spec.limits))
    session = admitted(batcher, new_session())
    passes(batcher)
    tail = session._tail_logits
    assert tail is not None
    assert tail.tolist() == recorder.last[0][-1].tolist()
    assert (tail.base if tail.base is not None else tail).nbytes == tail.nbytes


def test_the_cost_of_a_round_does_not_grow_with_the_text() -> None:
    batcher = Batcher(engine(2, 400_000))
    lengths = (100, 200_000)
    sessions = [admitted(batcher, new_session(seed, max_tokens=400_000)) for seed in (1, 2)]
    for session, length in zip(sessions, lengths, strict=True):
        offer(batcher, session, [1 + index % 6 for index in range(length)], num_forced=length)
        passes(batcher)

    def judge(session: CloudSession) -> None:
        offer(batcher, session, [1, 2, 3])
        batcher.step()

    for session in sessions:
        judge(session)
    short, long = (effort_of(partial(judge, session)) for session in sessions)
    assert long.num_steps == short.num_steps
    assert long.peak_bytes < short.peak_bytes + 10_000  # a copy of the text takes 1,600,000


def test_an_engine_that_reads_prompts_whole_reads_one_at_a_time_between_passes() -> None:
    whole = whole_prompts(engine(2))
    assert not isinstance(whole, ChunkedEngine)
    batcher = Batcher(whole, prefill_tokens=2)
    sessions = [admitted(batcher, new_session(seed, max_tokens=100)) for seed in range(4)]
    for session in sessions:
        credit(batcher, session)
    done = passes(batcher)
    assert not faults(done)
    assert sum(one.num_evicted for one in done) > 0
    for session in sessions:
        assert list(session.token_ids) == alone(session)
    with pytest.raises(EngineError, match="5000 tokens and a slot has room for 4096"):
        batcher.measure(prompt(5000))


def test_a_failing_engine_fails_the_session_that_it_fails_for() -> None:
    class Fragile(TableEngine):
        def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Floats]:
            if any(isinstance(item, PromptChunk) and item.num_tokens == 13 for item in extensions):
                raise RuntimeError("the device failed")
            return super().extend(extensions)

    spec = engine(4, 100)
    batcher = Batcher(Fragile(spec._table, 2, limits=spec.limits))
    bad = admitted(batcher, new_session(1, prompt=prompt(13)))
    good = admitted(batcher, new_session(2))
    credit(batcher, good)
    ((session, fault),) = faults(passes(batcher)).items()
    assert (session, fault.code) == (bad, messages.FaultCode.INTERNAL)
    assert "device failed" not in fault.sentence
    assert list(good.token_ids) == alone(good)
    for seed in range(4):  # its slot is free again
        admitted(batcher, new_session(seed))
    assert sum(one.num_evicted for one in passes(batcher)) == 1
