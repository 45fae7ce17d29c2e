"""The real pair, found in a folder, and the prompts that it answers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from skydraft.core import Prompt, SamplingParams, ShareLevel
from skydraft.engines.load import load_chat_format, load_tokenizer
from skydraft.tasks.chat import Render, chat_prompts
from skydraft.text.tokenizer import Tokenizer

FOLDER_VARIABLE = "SKYDRAFT_MODELS"
DRAFT_FILE, TARGET_FILE = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
PROMPTS = Path(__file__).with_name("prompts.jsonl")
KINDS = ("chat", "code", "maths", "translation", "story")
TEMPERATURES = (0.0, 0.8)
NUM_TOKENS = 64
SEED = 5000
MAX_LENGTH = 512  # of a slot: the longest prompt has 90 tokens


class PairMissing(Exception):
    """There are no models; says where they should be."""


class TextKey(NamedTuple):
    """What decides a text.

    number: of the prompt among those of its kind.
    """

    kind: str
    number: int
    temperature: float

    @property
    def seed(self) -> int:
        return SEED + self.number

    def sampling(self, end_ids: Sequence[int], num_tokens: int = NUM_TOKENS) -> SamplingParams:
        return SamplingParams(
            temperature=self.temperature, seed=self.seed, max_tokens=num_tokens, end_ids=tuple(end_ids)
        )

    def __str__(self) -> str:
        warmth = "greedy" if self.temperature == 0 else f"temperature {self.temperature:g}"
        return f"{self.kind} {self.number}, {warmth}"


@dataclass(frozen=True)
class Pair:
    """draft, target: paths of GGUF files."""

    draft: str
    target: str

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.draft, "draft")

    @cached_property
    def render(self) -> Render | None:
        template = load_chat_format(self.draft, "draft")
        return None if template is None else lambda text: template.render([{"role": "user", "content": text}])

    def prompt(self, key: TextKey) -> Prompt:
        """In the models' chat format."""
        prompt = chat_prompts(self.tokenizer, words(key), ShareLevel.TOKENS, self.render).cloud
        assert prompt is not None
        return prompt


def find_pair() -> Pair:
    """Raises: PairMissing."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise PairMissing(
            f"bench.real needs a folder with {DRAFT_FILE} and {TARGET_FILE}: name it in {FOLDER_VARIABLE}"
        )
    paths = [Path(folder, name) for name in (DRAFT_FILE, TARGET_FILE)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise PairMissing(f"bench.real needs {' and '.join(missing)} in {folder}, which {FOLDER_VARIABLE} names")
    return Pair(*map(str, paths))


def words(key: TextKey) -> str:
    """What the user says."""
    return _prompts()[key.kind][key.number]


def text_keys(num_each: int, first: int = 0) -> list[TextKey]:
    """Of each kind and temperature so many prompts; kinds take turns, so that any beginning has all of them."""
    return [
        TextKey(kind, number, temperature)
        for number in range(first, first + num_each)
        for temperature in TEMPERATURES
        for kind in KINDS
    ]


def _prompts() -> dict[str, list[str]]:
    prompts: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for line in PROMPTS.read_text().splitlines():
        row = json.loads(line)
        prompts[row["kind"]].append(row["prompt"])
    return prompts
