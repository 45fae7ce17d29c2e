"""How many tokens a second one cloud gives when it is full: devices that draft, against devices that do not.

The text target and its 4-bit draft, the same texts, the same batcher, as many slots as sessions. Devices repeat what
was recorded (bench.replay), so the machine belongs to the cloud. Once at the model's own pace on this machine, and once
at that of a large model on an accelerator, which reads many positions in about the time of one (paced: 30 ms a pass and
0.12 ms for each further position).

Claims:
    tokens_per_s_drafted, tokens_per_s_alone: of all sessions together, at the model's own pace.
    capacity_ratio: the first over the second.
    paced_tokens_per_s_drafted, paced_tokens_per_s_alone, paced_capacity_ratio: the same with an accelerator's pace.
    tokens_per_target_position: with drafts; alone it is 1.
    tokens_per_pass_drafted, tokens_per_pass_alone: of all sessions together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from bench.claims import Claim, parse_arguments, show
from bench.recording import record
from bench.replay import Replay, Result, Script
from skydraft.config import CloudSettings
from skydraft.core import Prompt, SamplingParams, TokenSegment
from skydraft.engines.base import Engine
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.engines.settings import EngineSettings
from skydraft.policies.way import FREE

TEXT = Path(__file__).parents[2] / "shared" / "text"
PACE = "paced:step_ms=30,node_ms=0.12:"
WAY = replace(FREE, least_offer_prob=0.3)
NUM_SESSIONS, NUM_TOKENS = 32, 96
QUICK_SESSIONS, QUICK_TOKENS = 8, 40
TEMPERATURE = 0.8


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    if not (TEXT / "target" / "config.json").is_file():
        raise SystemExit(f"bench.capacity needs the text pair in {TEXT}; see README.md for where it is from")
    torch.set_num_threads(1)  # more are slower on a model this small
    num_sessions, num_tokens = (QUICK_SESSIONS, QUICK_TOKENS) if arguments.quick else (NUM_SESSIONS, NUM_TOKENS)
    scripts = recorded_texts(num_sessions, num_tokens)
    show(_claims(scripts), arguments.json)


def recorded_texts(num_sessions: int, num_tokens: int) -> list[Script]:
    """Stories and what the draft offers on their way."""
    target, draft = (load_engine(str(TEXT / name), "target") for name in ("target", "draft-q4"))
    tokenizer = load_tokenizer(str(TEXT / "target"), "target")
    texts = [json.loads(line)["prompt"] for line in (TEXT / "prompts.jsonl").read_text().splitlines()]
    scripts = []
    for number in range(num_sessions):
        prompt = Prompt((TokenSegment(tuple(tokenizer.encode(texts[number % len(texts)], add_special=True))),))
        sampling = SamplingParams(temperature=TEMPERATURE, seed=number, max_tokens=num_tokens)
        scripts.append(record(target, draft, prompt, sampling, WAY))
    return scripts


def _claims(scripts: list[Script]) -> Iterator[Claim]:
    for prefix, pace in (("", ""), ("paced_", PACE)):
        engine = load_engine(f"{pace}{TEXT / 'target'}", "target", EngineSettings(num_slots=len(scripts)))
        drafted, alone = (_run(engine, scripts, drafts) for drafts in (True, False))
        speeds = [result.num_tokens / result.seconds for result in (drafted, alone)]
        for name, speed in zip(("drafted", "alone"), speeds, strict=True):
            yield Claim(f"{prefix}tokens_per_s_{name}", speed, "tokens/s", drafted.num_tokens)
        yield Claim(f"{prefix}capacity_ratio", speeds[0] / speeds[1], "times", drafted.num_tokens)
    yield Claim("tokens_per_target_position", drafted.num_tokens / drafted.num_positions, "tokens", drafted.num_rounds)
    for name, result in (("drafted", drafted), ("alone", alone)):
        yield Claim(f"tokens_per_pass_{name}", result.num_tokens / result.num_passes, "tokens", result.num_passes)


def _run(engine: Engine, scripts: list[Script], drafts: bool) -> Result:
    settings = CloudSettings(num_slots=len(scripts))
    result = Replay(engine, settings, scripts, drafts=drafts).run()
    for slot in range(len(scripts)):  # the hub is gone with its sessions; its engine goes on to the next
        engine.close(slot)
    return result


if __name__ == "__main__":
    main()
