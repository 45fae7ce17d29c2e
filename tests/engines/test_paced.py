import statistics
import time
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from skydraft.core import Prompt, TensorSegment, TokenSegment
from skydraft.core.tree_shape import TreeShape
from skydraft.engines.base import ChunkedEngine, Engine, EngineLimits, Extension, Prefilled, PromptChunk
from skydraft.engines.emulated.paced import (
    FINE_S,
    PIECE_S,
    Pace,
    PacedChunkedEngine,
    PacedEngine,
    pace_engine,
    split_pace,
)
from skydraft.engines.emulated.table_spec import load_table
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.engines.settings import EngineSettings
from skydraft.errors import CacheOverflow, ModelLoadError
from tests.engines.operations import text_prompt, whole_prompts

TABLE = "table:vocab=64,seed=3,order=2,tensors=1"
PACE = Pace(step_ms=30, node_ms=0.5, prompt_ms=2)
LIMITS = EngineLimits(num_slots=4, max_length=64)
LOG_MEL = TensorSegment("log_mel", "float16", (2, 7), bytes(28))


class Clock:
    """Time that passes only while somebody sleeps, or computes."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.sleeps_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds
        self.sleeps_s.append(seconds)


class Computing:
    """An engine whose passes take `compute_s` of a made-up clock."""

    def __init__(self, engine: Engine, clock: Clock, compute_s: float) -> None:
        self.engine, self.clock, self.compute_s = engine, clock, compute_s

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    def open(self, prompt: Prompt) -> Prefilled:
        self.clock.now_s += self.compute_s
        return self.engine.open(prompt)

    def extend(self, extensions: list[Extension]) -> list[np.ndarray]:
        self.clock.now_s += self.compute_s
        return self.engine.extend(extensions)


class Bench:
    """A paced table with a made-up clock."""

    def __init__(
        self, compute_s: float = 0.0, limits: EngineLimits = LIMITS, make: type[PacedEngine] = PacedEngine
    ) -> None:
        self.clock = Clock()
        inner = Computing(load_table(TABLE, limits), self.clock, compute_s)
        self.engine = make(cast(Engine, inner), PACE, clock=self.clock, sleep=self.clock.sleep)

    def took_ms(self, call: Callable[[], object]) -> float:
        start_s = self.clock.now_s
        call()
        return 1000 * (self.clock.now_s - start_s)


@pytest.mark.parametrize("compute_s", [0.0, 0.001, 0.02, 0.0299])
def test_a_pass_takes_its_step_whatever_of_it_was_computing(compute_s: float) -> None:
    bench = Bench(compute_s)
    slot = bench.engine.open(text_prompt(1)).slot
    assert bench.took_ms(lambda: bench.engine.extend([Extension.chain(slot, [5])])) == pytest.approx(30)
    assert bench.engine.counts.overruns == 0


def test_each_further_token_of_a_pass_counts_over_all_its_extensions() -> None:
    bench = Bench()
    first, second = bench.engine.open(text_prompt(1)).slot, bench.engine.open(text_prompt(2)).slot
    extensions = [Extension.chain(first, [3, 4, 5]), Extension(second, [6, 7], TreeShape((0, 0)))]
    assert bench.took_ms(lambda: bench.engine.extend(extensions)) == pytest.approx(30 + 0.5 * 4)


def test_reading_a_prompt_counts_its_tokens_and_the_frames_of_its_tensors() -> None:
    bench = Bench()
    prompt = Prompt((TokenSegment((1, 2)), LOG_MEL, TokenSegment((3,))))
    assert bench.took_ms(lambda: bench.engine.open(prompt)) == pytest.approx(30 + 2 * (3 + 7))


def test_crop_keep_path_close_and_an_empty_pass_are_free() -> None:
    bench = Bench()
    slot = bench.engine.open(text_prompt(1)).slot
    bench.engine.extend([Extension(slot, [3, 4, 5], TreeShape((0, 0, 2)))])

    def tidy() -> None:
        bench.engine.keep_path(slot, 0, [1, 2])
        bench.engine.crop(slot, 1)
        bench.engine.close(slot)
        assert bench.engine.extend([]) == []

    assert bench.took_ms(tidy) == 0
    assert bench.engine.counts.num_passes == 2


def test_prompts_in_chunks_share_a_pass_with_texts_and_count_token_by_token() -> None:
    bench = Bench(make=PacedChunkedEngine)
    engine = bench.engine
    assert isinstance(engine, PacedChunkedEngine)
    slot = engine.open(text_prompt(1)).slot
    prompt = Prompt((TokenSegment((1, 2, 3, 4)), LOG_MEL))
    assert bench.took_ms(lambda: engine.measure(prompt)) == 0
    reserved = engine.reserve(prompt)
    chunk = PromptChunk(reserved, 3)
    assert bench.took_ms(lambda: engine.extend([chunk, Extension.chain(slot, [5, 6])])) == pytest.approx(30 + 0.5 + 6)
    assert bench.took_ms(lambda: engine.extend([PromptChunk(reserved, 1)])) == pytest.approx(30 + 2)
    num_tokens = engine.measure(prompt)
    assert bench.took_ms(lambda: engine.open(prompt)) == pytest.approx(30 + 2 * num_tokens)


def test_an_engine_reads_prompts_in_chunks_where_the_one_within_does() -> None:
    chunked = load_table(TABLE, LIMITS)
    assert isinstance(pace_engine(chunked, PACE), ChunkedEngine)
    assert not isinstance(pace_engine(whole_prompts(chunked), PACE), ChunkedEngine)


def test_a_pass_that_computes_longer_than_its_pace_is_counted_and_not_shortened() -> None:
    bench = Bench(compute_s=0.031)
    slot = bench.engine.open(text_prompt(1)).slot  # 32 ms: in time
    assert bench.engine.counts.overruns == 0
    assert bench.took_ms(lambda: bench.engine.extend([Extension.chain(slot, [5])])) == pytest.approx(31)
    bench.engine.extend([Extension.chain(slot, [5, 6, 7, 8])])  # 31.5 ms: in time
    counts = bench.engine.counts
    assert (counts.num_passes, counts.overruns) == (3, 1)
    assert counts.total_late_s == pytest.approx(0.001)


def test_logits_and_slots_are_those_of_the_engine_within() -> None:
    paced, plain = Bench().engine, load_table(TABLE, LIMITS)
    for engine in (paced, plain):
        slot, _ = engine.open(text_prompt(1))
        engine.extend([Extension(slot, [3, 4, 5], TreeShape((0, 0, 2)))])
        engine.keep_path(slot, 0, [1, 2])
        engine.crop(slot, 1)
    (ours,), (theirs,) = (engine.extend([Extension.chain(0, [9, 8])]) for engine in (paced, plain))
    assert np.array_equal(ours, theirs)
    paced.close(0)
    assert paced.open(text_prompt(2)).slot == 0


def test_an_error_of_the_engine_within_passes_through_at_once() -> None:
    bench = Bench(limits=EngineLimits(1, 4))
    bench.engine.open(text_prompt(1))
    with pytest.raises(CacheOverflow):
        bench.engine.open(text_prompt(2))
    assert bench.engine.counts.num_passes == 1


@pytest.mark.slow  # a claim about time, which a busy machine cannot show
def test_passes_end_within_a_fraction_of_a_millisecond() -> None:
    engine = load_engine(f"paced:step_ms=4:{TABLE}", "target")
    slot = engine.open(text_prompt(1)).slot
    times_ms = []
    for _ in range(60):
        start_s = time.perf_counter()
        engine.extend([Extension.chain(slot, [5])])
        times_ms.append(1000 * (time.perf_counter() - start_s))
    assert min(times_ms) >= 4.0
    # The best quarter, for other work on the machine's cores delays any process now and then.
    assert statistics.quantiles(times_ms, n=4)[0] < 4.3


def test_all_of_a_wait_is_slept_and_only_its_end_in_pieces() -> None:
    bench = Bench()
    slot = bench.engine.open(text_prompt(1)).slot
    bench.clock.sleeps_s.clear()
    bench.engine.extend([Extension.chain(slot, [5])])
    first_s, *pieces_s = bench.clock.sleeps_s
    assert first_s == pytest.approx(PACE.step_ms / 1000 - FINE_S)
    assert sum(pieces_s) == pytest.approx(FINE_S)
    assert len(pieces_s) <= FINE_S / PIECE_S + 2


def test_a_name_with_a_pace_loads_the_model_behind_it_with_its_settings() -> None:
    model = f"paced:step_ms=3,node_ms=0.12,prompt_ms=0.1:{TABLE}"
    engine = load_engine(model, "target", EngineSettings(num_slots=3, max_length=9))
    assert engine.limits == (3, 9)
    assert engine.name == f"paced:step_ms=3,node_ms=0.12,prompt_ms=0.1:{TABLE}"
    assert engine.vocabulary == load_engine(TABLE, "target").vocabulary
    assert load_tokenizer(model, "draft").vocabulary == load_tokenizer(TABLE, "draft").vocabulary


def test_a_name_without_a_pace_stays_as_it_is() -> None:
    assert split_pace("embedded") == (None, "embedded")
    assert split_pace("paced:step_ms=30:/models/a:b") == (Pace(30), "/models/a:b")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("paced:embedded", "unknown field `embedded`"),
        ("paced::embedded", "missing required field `step_ms`"),
        ("paced:step_ms=30", "MODEL is ''"),
        ("paced:step_ms=30:", "MODEL is ''"),
        ("paced:step_ms=30:paced:step_ms=2:embedded", "a model without a pace of its own"),
        ("paced:step_ms=0:embedded", "step_ms is 0.0 and must be above 0"),
        ("paced:step_ms=nan:embedded", "step_ms is nan and must be 0 to 60000"),
        ("paced:step_ms=1,node_ms=-1:embedded", "node_ms is -1.0 and must be 0 to 60000"),
        ("paced:step_ms=1,prompt_ms=1e9:embedded", "prompt_ms is 1000000000.0"),
        ("paced:step_ms=fast:embedded", "Expected `float`"),
        ("paced:step_ms=1,speed=3:embedded", "unknown field `speed`"),
    ],
)
def test_wrong_paces_name_what_is_wrong(model: str, reason: str) -> None:
    for load in (lambda: load_engine(model, "draft"), lambda: load_tokenizer(model, "draft")):
        with pytest.raises(ModelLoadError, match=reason) as caught:
            load()
        assert "paced:step_ms=30,node_ms=0.12,prompt_ms=0.1:MODEL" in str(caught.value)
