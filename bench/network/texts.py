"""What is written: the openings of stories, and how each run goes on from one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from bench.network.profiles import TEXT
from bench.network.rows import Key, Row
from skydraft.core import SamplingParams
from skydraft.engines.load import load_tokenizer

SEED = 1000


class Prompts:
    """The openings, as token ids; each run has its own."""

    def __init__(self) -> None:
        tokenizer = load_tokenizer(str(TEXT / "target"), "target")
        lines = (TEXT / "prompts.jsonl").read_text().splitlines()
        self._prompts = [tuple(tokenizer.encode(json.loads(line)["prompt"])) for line in lines]

    def index(self, run: int) -> int:
        return run % len(self._prompts)

    def __getitem__(self, run: int) -> tuple[int, ...]:
        return self._prompts[self.index(run)]


def sampling_of(key: Key) -> SamplingParams:
    """Of a run; texts have their full length, so that rates compare."""
    return SamplingParams(temperature=key.cell.temperature, seed=SEED + key.run, max_tokens=key.tokens)


def row_of(key: Key, prompts: Prompts, token_ids: Sequence[int], **measured: Any) -> Row:
    """A text with what was measured of it."""
    return Row(
        cell=key.cell,
        mode=key.mode,
        run=key.run,
        prompt=prompts.index(key.run),
        seed=sampling_of(key).seed,
        tokens=len(token_ids),
        digest=hashlib.sha256(json.dumps(list(token_ids)).encode()).hexdigest()[:16],
        **measured,
    )
