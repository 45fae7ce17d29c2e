"""Whether a text is the cloud's own however it is drafted: what `python -m bench.gpu --invariance MODEL` measures.

Each prompt is answered greedily by the cloud alone, as many at a time as there are slots. Then the same texts are
written in other ways, and compared:

    again     by the cloud alone, half as many at a time and in another order: what is batched differs
    wait:5    by chains of 5 drafted tokens, one after the other
    tree      by trees of four levels of two

Drafts are made of the text that the cloud wrote alone: a drafted token is that text's with probability 0.7. Where a
text differs, `gap` is the difference of the two tokens' logits at the first such place, read anew. All of it is done
twice, in processes of their own, with the flag on and off: VLLM_BATCH_INVARIANT for vLLM, --fast-math for others.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from array_api_compat import is_torch_array

from bench.claims import RESULTS, Claim, show, write_results
from bench.real.pair import PROMPTS
from skydraft.cloud.session_registry import SessionRegistry
from skydraft.config import CloudSettings
from skydraft.core import Exact, Prompt, SamplingParams, ShareLevel, TreeShape
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.base import Engine, Extension, NarrowEngine
from skydraft.engines.load import load_chat_format, load_engine, load_tokenizer
from skydraft.engines.settings import EngineSettings
from skydraft.tasks.chat import chat_prompts

VLLM_FLAG = "VLLM_BATCH_INVARIANT"
FLAGS = ("on", "off")
NUM_SLOTS = 64
ROOM = 256  # for a prompt
RIGHT = 0.7  # of drafted tokens
CHAIN_LENGTH = 5
TREE = TreeShape((0, 0, 1, 1, 3, 3, 5, 5))
NUM_LOGITS = 32  # of a row, to find the gap of two tokens

Draft: TypeAlias = tuple[list[int], TreeShape]
MakeDraft: TypeAlias = Callable[[Sequence[int], int, int], Draft]  # the text alone, where, how many tokens at most


class Difference(NamedTuple):
    """Where a text first differs from that of the cloud alone. gap: None where the engine tells too few logits."""

    prompt: int
    position: int
    gap: float | None


def run(options: argparse.Namespace) -> int:
    """Measure with each flag that is asked for, and show the claims."""
    flags = FLAGS if options.flag == "both" else (options.flag,)
    content = {flag: _in_own_process(options, flag) if options.flag == "both" else measure(options) for flag in flags}
    if not options.tiny:
        write_results(RESULTS / "invariance.json", "bench.gpu", {"model": options.invariance, **content})
    show([claim for flag in flags for claim in claims(flag, content[flag])], options.json)
    return 0


def _in_own_process(options: argparse.Namespace, flag: str) -> dict[str, Any]:
    """The flag of vLLM is read when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name != VLLM_FLAG}
    if flag == "on":
        environment[VLLM_FLAG] = "1"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "content.json")
        told = json.dumps({**vars(options), "flag": flag})
        subprocess.run([sys.executable, "-m", "bench.invariance", told, str(out)], env=environment, check=True)
        content: dict[str, Any] = json.loads(out.read_text())
        return content


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All ways with one engine, as JSON has it."""
    began_s = time.monotonic()
    settings = EngineSettings(
        num_slots=min(NUM_SLOTS, options.prompts),
        max_length=ROOM + options.tokens,
        device=options.device,
        dtype=options.dtype,
        fast_math=options.flag == "off",
        self_test=True,
    )
    engine = load_engine(options.invariance, "target", settings)
    prompts = prompts_for(options.invariance, options.prompts)
    alone, ways = compare(engine, prompts, options.tokens)
    return {
        "promise": engine.row_promise._asdict(),
        "num_texts": len(prompts),
        "num_tokens": sum(map(len, alone)),
        "ways": {way: [difference._asdict() for difference in found] for way, found in ways.items()},
        "total_s": time.monotonic() - began_s,
    }


def claims(flag: str, content: dict[str, Any]) -> Iterator[Claim]:
    """equal_share of each way, and the largest gap at a first difference."""
    num_texts = content["num_texts"]
    for way, found in content["ways"].items():
        yield Claim(f"equal_share.{flag}.{way}", 1 - len(found) / num_texts, "", num_texts)
        gaps = [difference["gap"] for difference in found if difference["gap"] is not None]
        if gaps:
            yield Claim(f"largest_gap.{flag}.{way}", max(gaps), "", len(gaps))
    yield Claim(f"total_s.{flag}", content["total_s"], "s", content["num_tokens"])


def prompts_for(model: str, number: int) -> list[Prompt]:
    """The prompts of `bench.real`, in the model's chat format; the first ones again where more are asked for."""
    tokenizer, template = load_tokenizer(model, "target"), load_chat_format(model, "target")
    render = None if template is None else lambda text: template.render([{"role": "user", "content": text}])
    texts = [json.loads(line)["prompt"] for line in PROMPTS.read_text().splitlines()]
    pairs = [chat_prompts(tokenizer, texts[i % len(texts)], ShareLevel.TOKENS, render) for i in range(number)]
    return [pair.cloud for pair in pairs if pair.cloud is not None]


def compare(
    engine: Engine, prompts: Sequence[Prompt], num_tokens: int
) -> tuple[list[list[int]], dict[str, list[Difference]]]:
    """The texts that the cloud writes alone, and of each other way where its texts first differ from these."""
    num_slots = engine.limits.num_slots
    alone = _write(engine, prompts, num_tokens, num_slots)
    backwards = _write(engine, prompts[::-1], num_tokens, max(1, num_slots // 2))[::-1]
    texts = {"again": backwards}
    for way, make in (("wait:5", _chain(Random(1))), ("tree", _tree(Random(2)))):
        texts[way] = _write(engine, prompts, num_tokens, num_slots, (make, alone))
    return alone, {way: list(_differences(engine, prompts, alone, written)) for way, written in texts.items()}


def _write(
    engine: Engine,
    prompts: Sequence[Prompt],
    num_tokens: int,
    at_once: int,
    drafts: tuple[MakeDraft, Sequence[Sequence[int]]] | None = None,
) -> list[list[int]]:
    """Write a text for each prompt, so many together; without drafts the cloud writes alone."""
    registry = SessionRegistry(engine, CloudSettings())
    sampling = SamplingParams(max_tokens=num_tokens, end_ids=engine.vocabulary.end_ids)
    texts: list[list[int]] = []
    for first in range(0, len(prompts), at_once):
        numbers = range(first, min(first + at_once, len(prompts)))
        sessions = {n: EdgeSession(engine.vocabulary, prompts[n], sampling, Exact(), n) for n in numbers}
        while any(not session.is_complete for session in sessions.values()):
            for number, session in sessions.items():
                _ask(session, None if drafts is None else (drafts[0], drafts[1][number]))
                for message in session.to_send():
                    _hear(sessions, registry.receive(0, message))
            _hear(sessions, registry.step())
        for number, session in sessions.items():
            registry.receive(0, session.close())
            texts.append(list(sessions[number].token_ids))
    return texts


def _ask(session: EdgeSession, draft: tuple[MakeDraft, Sequence[int]] | None) -> None:
    """What the device wants next: all that the cloud writes, or its next draft judged."""
    if draft is None:
        session.give_credit(session.sampling.max_tokens)
    elif session.can_follow and not session.num_in_flight and not session.is_complete:
        make, alone = draft
        session.offer(*make(alone, len(session.token_ids), session.max_block_length))


def _hear(sessions: dict[int, EdgeSession], replies: Sequence[tuple[int, Any]]) -> None:
    for _, message in replies:
        sessions[message.session].receive(message)


def _chain(random: Random) -> MakeDraft:
    def make(alone: Sequence[int], start: int, most: int) -> Draft:
        length = min(CHAIN_LENGTH, most)
        return [_guess(random, alone, start + depth) for depth in range(length)], TreeShape.chain(length)

    return make


def _tree(random: Random) -> MakeDraft:
    def make(alone: Sequence[int], start: int, most: int) -> Draft:
        token_ids: list[int] = []
        for depth in range(min(len(TREE), most) // 2 or 1):
            first = _guess(random, alone, start + depth)
            token_ids += [first, _other(random, alone, first)]
        token_ids = token_ids[:most]
        return token_ids, TreeShape(TREE.parents[: len(token_ids)])

    return make


def _guess(random: Random, alone: Sequence[int], position: int) -> int:
    is_right = position < len(alone) and random.random() < RIGHT
    return alone[position] if is_right else random.choice(alone)


def _other(random: Random, alone: Sequence[int], first: int) -> int:
    """A sibling: another of the text's tokens, or else any other id."""
    others = [token_id for token_id in alone if token_id != first]
    return random.choice(others) if others else (1 if first == 0 else 0)


def _differences(
    engine: Engine, prompts: Sequence[Prompt], alone: Sequence[list[int]], written: Sequence[list[int]]
) -> Iterator[Difference]:
    for number, (ours, theirs) in enumerate(zip(alone, written, strict=True)):
        if ours != theirs:
            pairs = zip(ours, theirs, strict=False)
            position = next(i for i, (one, other) in enumerate(pairs) if one != other)
            row = _row_after(engine, prompts[number], ours[:position])
            gap = abs(float(row[ours[position]]) - float(row[theirs[position]]))
            yield Difference(number, position, gap if math.isfinite(gap) else None)


def _row_after(engine: Engine, prompt: Prompt, token_ids: Sequence[int]) -> Any:
    """float [vocab_size] after a prompt and a text, which is read at once."""
    slot, row = engine.open_narrow(prompt, NUM_LOGITS) if isinstance(engine, NarrowEngine) else engine.open(prompt)
    if token_ids:
        (rows,) = engine.extend([Extension.chain(slot, token_ids, num_rows=1)])
        row = rows[-1]
    engine.close(slot)
    return np.asarray(row.cpu().numpy() if is_torch_array(row) else row)


if __name__ == "__main__":  # the process of one flag: the options of bench.gpu, and where its results go
    Path(sys.argv[2]).write_text(json.dumps(measure(argparse.Namespace(**json.loads(sys.argv[1])))))
