"""What a cloud's own work costs as sessions grow in number and in length: no sockets, devices that never think.

A table engine takes next to nothing, so the times are those of batcher, registry and messages; the text target, where
it is present, shows what a pass over many sessions saves. Each session offers 8 tokens, of which all hold (table,
greedy), or what the 4-bit draft drafted (text, sampled), and offers on as soon as it has its verdict.

Claims, for n sessions with a slot each, and for 64 sessions on 8 slots:
    rounds_per_s.n, text_rounds_per_s.n: verdicts of all sessions together.
    queue_ms_p50.n, queue_ms_p99.n: from an offer's arrival to the beginning of its forward pass.
    session_kb: what a session with a prompt of 200 tokens and a text of 200 takes in memory, without its KV cache.
    text_slot_kb: the KV cache of one slot of the text target, 512 tokens long.
    round_us.n: a round of a session whose text has n tokens: it must not grow with the text.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Iterator, Sequence

from bench.capacity import recorded_texts
from bench.claims import Claim, parse_arguments, show
from bench.network.profiles import TEXT
from bench.replay import Replay, Script, write_alone
from skydraft.cloud.session_registry import SessionRegistry
from skydraft.config import CloudSettings
from skydraft.core import Draft, Exact, Prompt, SamplingParams, TokenSegment
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.base import Engine
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.protocol import codec, messages, offers

TABLE = "table:vocab=64,seed=3,order=2"
NUM_SESSIONS = (1, 4, 16, 64)
BLOCK_LENGTH = 8
LEAST_PROB = 0.3  # of what devices of the text pair offer
NUM_CROWDED, CROWDED_SLOTS = 64, 8
SHORT, LONG = 200, 20_000
PROMPT_LENGTH = 200


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    show(_claims(arguments.quick), arguments.json)


def _claims(is_quick: bool) -> Iterator[Claim]:
    num_tokens = 90 if is_quick else 450
    yield from _table_claims(num_tokens)
    if (TEXT / "target" / "config.json").is_file():
        yield from _text_claims(NUM_SESSIONS[:3] if is_quick else NUM_SESSIONS, 32 if is_quick else 96)
    yield _session_memory(50 if is_quick else 500)
    yield from _cost_of_length(50 if is_quick else 300)


def _table_claims(num_tokens: int) -> Iterator[Claim]:
    cases = [(str(number), number, number) for number in NUM_SESSIONS]
    cases.append((f"{NUM_CROWDED}_on_{CROWDED_SLOTS}", NUM_CROWDED, CROWDED_SLOTS))
    for name, num_sessions, num_slots in cases:
        engine = load_engine(TABLE, "target", EngineSettings(num_slots=num_slots))
        scripts = [_right_guesses(seed, num_tokens) for seed in range(num_sessions)]
        _, whole, queue_s = Replay(engine, CloudSettings(num_slots=num_slots), scripts, drafts=True).run()
        yield Claim(f"rounds_per_s.{name}", whole.num_rounds / whole.seconds, "rounds/s", whole.num_rounds)
        queue_ms = [1000 * seconds for seconds in queue_s]
        yield Claim(f"queue_ms_p50.{name}", statistics.median(queue_ms), "ms", len(queue_ms))
        yield Claim(f"queue_ms_p99.{name}", statistics.quantiles(queue_ms, n=100)[-1], "ms", len(queue_ms))


def _text_claims(nums_sessions: Sequence[int], num_tokens: int) -> Iterator[Claim]:
    import torch

    torch.set_num_threads(1)  # more are slower on a model this small
    scripts = recorded_texts(max(nums_sessions), num_tokens, LEAST_PROB)
    for number in nums_sessions:
        engine = load_engine(str(TEXT / "target"), "target", EngineSettings(num_slots=number, max_length=512))
        whole = Replay(engine, CloudSettings(num_slots=number), scripts[:number], drafts=True).run().whole
        yield Claim(f"text_rounds_per_s.{number}", whole.num_rounds / whole.seconds, "rounds/s", whole.num_rounds)
    yield Claim("text_slot_kb", engine.cache_bytes / number / 1000, "kB", 1)  # type: ignore[attr-defined]


def _right_guesses(seed: int, num_tokens: int) -> Script:
    """A text, and a device that guesses it."""
    prompt, sampling = _prompt(8), SamplingParams(max_tokens=num_tokens, seed=seed)
    token_ids = write_alone(load_engine(TABLE, "target"), prompt, sampling)
    starts = range(1, num_tokens, BLOCK_LENGTH + 1)  # the first token comes on credit, and the cloud adds a bonus token
    blocks = (Draft.chain(start, tuple(token_ids[start : start + BLOCK_LENGTH])) for start in starts)
    return Script(prompt, sampling, token_ids, {block.start: block for block in blocks})


def _session_memory(num_sessions: int) -> Claim:
    registry = _Talk(load_engine(TABLE, "target", EngineSettings(num_slots=1)), SHORT)
    gc.collect()
    tracemalloc.start()
    for number in range(num_sessions):
        registry.open(number, _prompt(PROMPT_LENGTH))
    gc.collect()
    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Claim("session_kb", num_bytes / num_sessions / 1000, "kB", num_sessions)


def _cost_of_length(num_rounds: int) -> Iterator[Claim]:
    engine = load_engine(TABLE, "target", EngineSettings(max_length=LONG + 10_000))
    truth = write_alone(engine, _prompt(8), SamplingParams(max_tokens=LONG + num_rounds * (BLOCK_LENGTH + 1)))
    for length in (SHORT, LONG):
        talk = _Talk(engine, len(truth))
        talk.open(0, _prompt(8), truth[:length])
        times_us = [1e6 * talk.round_s(truth) for _ in range(num_rounds)]
        talk.close()
        yield Claim(f"round_us.{length}", statistics.median(times_us), "us", num_rounds)


class _Talk:
    """Sessions at one registry, spoken with one at a time."""

    def __init__(self, engine: Engine, max_tokens: int) -> None:
        self._registry = SessionRegistry(engine, CloudSettings(max_sessions=2**16))
        self._vocabulary = engine.vocabulary
        self._sampling = SamplingParams(max_tokens=max_tokens)
        self._length = 0

    def open(self, number: int, prompt: Prompt, told_ids: list[int] | None = None) -> None:
        """Begin a session; tell it a text, or have it write one."""
        self._say(EdgeSession(self._vocabulary, prompt, self._sampling, Exact(), number).open())
        if told_ids is None:
            self._say(messages.Generate(self._sampling.max_tokens, number))
        else:
            self._say(offers.to_wire(Draft.chain(0, tuple(told_ids), num_forced=len(told_ids)), number, 64, Exact()))
            self._length = len(told_ids) + 1

    def round_s(self, truth: list[int]) -> float:
        """Time from an offer's bytes to its verdict's."""
        block = tuple(truth[self._length : self._length + BLOCK_LENGTH])
        data = codec.encode(offers.to_wire(Draft.chain(self._length, block), 0, 64, Exact()))
        began_s = time.perf_counter()
        self._registry.receive(0, codec.decode_edge_message(data))
        ((_, verdict),) = self._registry.step()
        codec.encode(verdict)
        seconds = time.perf_counter() - began_s
        assert isinstance(verdict, messages.Verdict)
        self._length = verdict.length
        return seconds

    def close(self) -> None:
        self._registry.receive(0, messages.Close(0))

    def _say(self, message: messages.EdgeMessage) -> None:
        for _, reply in self._registry.receive(0, codec.decode_edge_message(codec.encode(message))):
            assert not isinstance(reply, messages.Fault), reply.sentence
        while self._registry.is_busy:
            self._registry.step()


def _prompt(num_tokens: int) -> Prompt:
    return Prompt((TokenSegment(tuple(1 + index % 60 for index in range(num_tokens))),))


if __name__ == "__main__":
    main()
