"""How long an engine's forward passes take: a short measurement when it is loaded, of what planners begin with."""

from __future__ import annotations

import time

from skydraft.core import PassTimes, Prompt, TokenSegment
from skydraft.engines.base import Engine, Extension, NarrowEngine, Slot
from skydraft.errors import EngineError

BLOCK = 5  # tokens: as many as offers often have
NUM_ROUNDS = 3  # of which the fastest counts: what else runs only makes passes slower
NUM_PROMPT_TOKENS = 8


def time_passes(engine: Engine) -> PassTimes | None:
    """Time passes over one token and over BLOCK; no slot is open, before and after.

    Returns:
        None where the engine cannot read so much.
    """
    ids = [index % engine.vocabulary.num_tokens for index in range(BLOCK)]
    prompt = Prompt((TokenSegment(tuple(ids[index % BLOCK] for index in range(NUM_PROMPT_TOKENS))),))
    try:
        opened = engine.open_narrow(prompt, BLOCK) if isinstance(engine, NarrowEngine) else engine.open(prompt)
        slot = opened.slot
        try:
            _pass_s(engine, slot, ids)  # the first may have to set things up
            rounds = [(_pass_s(engine, slot, ids[:1]), _pass_s(engine, slot, ids)) for _ in range(NUM_ROUNDS)]
        finally:
            engine.close(slot)
    except EngineError:
        return None
    step_s, block_s = map(min, zip(*rounds, strict=True))
    return PassTimes(step_s, max(0.0, block_s - step_s) / (BLOCK - 1))


def _pass_s(engine: Engine, slot: Slot, token_ids: list[int]) -> float:
    begin_s = time.perf_counter()
    engine.extend([Extension.chain(slot, token_ids)])
    elapsed_s = time.perf_counter() - begin_s
    engine.crop(slot, 0)
    return elapsed_s
