"""What it costs that a row of the target is the same in all company: time of a token, over that with --fast-math."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator

import msgspec

from bench.claims import Claim
from bench.real.pair import MAX_LENGTH, Pair, TextKey
from bench.real.row_file import RowFile
from skydraft.engines.base import Engine, Extension
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings

BLOCKS = (1, 3, 5, 8)  # tokens read at once
PROMPT = 0  # in their place: the whole prompt, a token of it
KEY = TextKey("story", 39, 0.0)


class CostRow(msgspec.Struct, frozen=True):
    """One turn.

    block: tokens read at once; PROMPT: the prompt. invariant_ms, fast_ms: a pass; of the prompt, a token.
    """

    block: int
    invariant_ms: float
    fast_ms: float


def measure_cost(pair: Pair, num_turns: int, file: RowFile[CostRow], until_s: float) -> None:
    """The two engines take turns, so that a bad minute is in both.

    Args:
        until_s: of `time.monotonic`; no turn begins later.
    """
    num_missing = num_turns - sum(row.block == 1 for row in file.rows)
    if num_missing <= 0 or time.monotonic() > until_s:
        return
    engines = [
        load_engine(pair.target, "target", EngineSettings(num_threads=1, max_length=MAX_LENGTH, fast_math=fast_math))
        for fast_math in (False, True)
    ]
    for _ in range(num_missing):
        if time.monotonic() > until_s:
            return
        slots, times_ms = zip(*(_open(engine, pair) for engine in engines), strict=True)
        file.add(CostRow(PROMPT, *times_ms))
        for block in BLOCKS:
            times_ms = tuple(_pass_ms(engine, slot, block) for engine, slot in zip(engines, slots, strict=True))
            file.add(CostRow(block, *times_ms))
        for engine, slot in zip(engines, slots, strict=True):
            engine.close(slot)


def _open(engine: Engine, pair: Pair) -> tuple[int, float]:
    """The slot and the time of a prompt's token."""
    prompt = pair.prompt(KEY)
    began_s = time.thread_time()
    slot = engine.open(prompt).slot
    num_ids = len(prompt.segments[0].token_ids)  # type: ignore[union-attr]
    return slot, 1000 * (time.thread_time() - began_s) / num_ids


def _pass_ms(engine: Engine, slot: int, block: int) -> float:
    """Processor time of a pass, the lesser of two."""
    times_s = []
    for _ in range(2):
        began_s = time.thread_time()
        engine.extend([Extension.chain(slot, range(1, 1 + block))])
        times_s.append(time.thread_time() - began_s)
    return 1000 * min(times_s)


def cost_claims(rows: Iterable[CostRow]) -> Iterator[Claim]:
    """invariant_cost: of a token; then of a prompt's, and of blocks."""
    by_block: dict[int, list[CostRow]] = {}
    for row in rows:
        by_block.setdefault(row.block, []).append(row)
    names = {1: "invariant_cost", PROMPT: "invariant_cost_prompt"}
    for block in sorted(by_block, key=lambda block: (block != 1, block)):
        some = by_block[block]
        ratio = statistics.median(row.invariant_ms / row.fast_ms for row in some)
        yield Claim(names.get(block, f"invariant_cost_block_{block}"), ratio, "x fast", len(some))
    if 1 in by_block:
        yield Claim("token_ms", statistics.median(row.invariant_ms for row in by_block[1]), "ms", len(by_block[1]))
