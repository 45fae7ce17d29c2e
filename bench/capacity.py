"""How many tokens a second one cloud gives while it is full: devices that draft, against devices that do not.

The text target and its 4-bit draft, the same texts, the same batcher, as many slots as sessions, until the first text
is complete. Devices repeat what was recorded (bench.recording), so the machine belongs to the cloud. Once at the
model's own pace on this machine, and once at that of a large model on an accelerator, which reads many positions in
about the time of one (paced: 30 ms a pass and 0.12 ms for each further position).

Devices offer trees of all guesses that are more probable than the time that judging them takes is worth: with a
position's time d and L tokens a second of all sessions, those above d L. For the paced target that is 0.1 with 8
sessions and 0.3 with 32; objective cost, which a device steers by what was judged in vain, arrives at 0.25.

What bounds the ratio is first what a pass gives a session (the draft: tokens_per_round), then what the positions take:
where d is nothing the two are equal. With 32 sessions a pass judges 131 positions in place of 32 and takes 1.35 times
as long, so that 3.05 tokens a round are 2.26 times the capacity (paced_capacity_bound); with 8 sessions 4.6 are 3.6.
What is missing to that is the cloud's own work between two passes, most of it choosing: 0.08 ms for each row of 2048
tokens on one core. At the model's own pace positions are dear on this machine and bound the ratio before that.

Time is this process's, on one thread, and the paced engine's waits are added to it: what else the machine does counts
little.

Claims, for n sessions:
    tokens_per_s_drafted.n, tokens_per_s_alone.n: of all sessions together, at the model's own pace.
    capacity_ratio.n: the first over the second.
    paced_tokens_per_s_drafted.n, paced_tokens_per_s_alone.n, paced_capacity_ratio.n: with an accelerator's pace.
    paced_capacity_bound.n: the ratio if the cloud did nothing but passes.
    paced_overruns.n: passes that computed longer than their pace; where there are some, this machine was too slow.
    tokens_per_round.n: that a session gets from a pass, accepted ones and the target's own; alone it is 1.
    positions_per_token.n: that are computed for each token of the text; alone it is 1.
    tokens_per_pass.n: of all sessions together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from bench.claims import Claim, parse_arguments, show
from bench.network.profiles import TEXT
from bench.recording import record
from bench.replay import Replay, Script, Tally
from skydraft.config import CloudSettings
from skydraft.core import Prompt, SamplingParams, TokenSegment
from skydraft.engines.base import Engine
from skydraft.engines.emulated.paced import Pace, PacedChunkedEngine
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.engines.settings import EngineSettings
from skydraft.policies.way import FREE

PACE = Pace(step_ms=30, node_ms=0.12)
TEMPERATURE = 0.8


class Case(NamedTuple):
    """How full the cloud is. least_prob: less probable guesses are not offered."""

    num_sessions: int
    least_prob: float


class Clock:
    """Seconds of this process, and those that were waited."""

    def __init__(self) -> None:
        self._waited_s = 0.0

    def __call__(self) -> float:
        return time.process_time() + self._waited_s

    def wait(self, seconds: float) -> None:
        self._waited_s += seconds


CASES = (Case(8, 0.1), Case(32, 0.3))
NUM_TOKENS, QUICK_TOKENS = 96, 40


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    if not (TEXT / "target" / "config.json").is_file():
        raise SystemExit(f"bench.capacity needs the text pair in {TEXT}; see README.md for where it is from")
    torch.set_num_threads(1)  # more are slower on a model this small
    cases, num_tokens = (CASES[:1], QUICK_TOKENS) if arguments.quick else (CASES, NUM_TOKENS)
    show((claim for case in cases for claim in _claims(case, num_tokens)), arguments.json)


def recorded_texts(num_sessions: int, num_tokens: int, least_prob: float) -> list[Script]:
    """Stories and what the draft offers on their way."""
    target, draft = (load_engine(str(TEXT / name), "target") for name in ("target", "draft-q4"))
    tokenizer = load_tokenizer(str(TEXT / "target"), "target")
    texts = [json.loads(line)["prompt"] for line in (TEXT / "prompts.jsonl").read_text().splitlines()]
    way = replace(FREE, least_offer_prob=least_prob)
    scripts = []
    for number in range(num_sessions):
        prompt = Prompt((TokenSegment(tuple(tokenizer.encode(texts[number % len(texts)], add_special=True))),))
        sampling = SamplingParams(temperature=TEMPERATURE, seed=number, max_tokens=num_tokens)
        scripts.append(record(target, draft, prompt, sampling, way))
    return scripts


def _claims(case: Case, num_tokens: int) -> Iterator[Claim]:
    number = case.num_sessions
    scripts = recorded_texts(number, num_tokens, case.least_prob)
    engine = load_engine(str(TEXT / "target"), "target", EngineSettings(num_slots=number))
    clock = Clock()
    both = _run_both(engine, scripts, clock)
    yield from _speeds("", both, number)
    paced = PacedChunkedEngine(engine, PACE, clock=clock, sleep=clock.wait)
    yield from _speeds("paced_", _run_both(paced, scripts, clock), number)
    drafted, alone = both
    bound = (drafted.num_tokens / _seconds_at_pace(drafted)) / (alone.num_tokens / _seconds_at_pace(alone))
    yield Claim(f"paced_capacity_bound.{number}", bound, "times", drafted.num_passes)
    yield Claim(f"paced_overruns.{number}", paced.counts.overruns, "passes", paced.counts.num_passes)
    num_rounds, num_written = drafted.num_rounds - number, drafted.num_tokens - number  # the first cost no pass
    yield Claim(f"tokens_per_round.{number}", num_written / num_rounds, "tokens", num_rounds)
    yield Claim(f"positions_per_token.{number}", drafted.num_positions / num_written, "positions", num_written)
    yield Claim(f"tokens_per_pass.{number}", num_written / drafted.num_passes, "tokens", drafted.num_passes)


class Both(NamedTuple):
    """The same texts with drafts and without."""

    drafted: Tally
    alone: Tally


def _speeds(prefix: str, both: Both, number: int) -> Iterator[Claim]:
    speeds = [tally.num_tokens / tally.seconds for tally in both]
    for name, speed, tally in zip(Both._fields, speeds, both, strict=True):
        yield Claim(f"{prefix}tokens_per_s_{name}.{number}", speed, "tokens/s", tally.num_tokens)
    yield Claim(f"{prefix}capacity_ratio.{number}", speeds[0] / speeds[1], "times", both.drafted.num_tokens)


def _seconds_at_pace(tally: Tally) -> float:
    """What the passes would take if each took its pace."""
    num_further = tally.num_positions - tally.num_passes
    return (tally.num_passes * PACE.step_ms + num_further * PACE.node_ms) / 1000


def _run_both(engine: Engine, scripts: list[Script], clock: Clock) -> Both:
    return Both(*(_run(engine, scripts, clock, drafts) for drafts in (True, False)))


def _run(engine: Engine, scripts: list[Script], clock: Clock, drafts: bool) -> Tally:
    settings = CloudSettings(num_slots=len(scripts))
    tally = Replay(engine, settings, scripts, drafts=drafts, clock=clock).run().full
    for slot in range(len(scripts)):  # the sessions are gone with their registry; its engine goes on to the next
        engine.close(slot)
    return tally


if __name__ == "__main__":
    main()
