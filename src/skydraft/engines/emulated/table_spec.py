"""Random tables, described by a string such as `table:vocab=64,seed=3,sharpness=2`."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from skydraft.engines.base import EngineLimits
from skydraft.engines.emulated.table import Floats, TableEngine
from skydraft.engines.emulated.words import LETTERS, letter_vocabulary, word_vocabulary
from skydraft.engines.name_settings import NameSettings
from skydraft.text.vocabulary import Vocabulary

PREFIX = "table:"
MAX_TABLE_ENTRIES = 2**22  # 16 MiB; in a larger table contexts share rows
MAX_VOCABULARY = 2**20


class TableSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A random table.

    vocab: number of tokens. seed: of the table. sharpness: standard deviation of the logits.
    order: how many tokens a row depends on.
    noise, noise_seed: standard deviation and seed of what is added to the logits: for a draft like its target.
    tensors: 1 takes tensor segments; the logits then depend on their bytes.
    end: id of the token that ends a text; -1: none does.
    letters: 1 has characters for tokens in place of words; at least 96 of them, and one that ends a text besides.
    """

    vocab: int = 64
    seed: int = 0
    sharpness: float = 2.0
    order: int = 1
    noise: float = 0.0
    noise_seed: int = 1
    tensors: int = 0
    end: int = -1
    letters: int = 0


def load_table(model: str, limits: EngineLimits) -> TableEngine:
    """Make the engine that `table:name=value,...` describes.

    Raises:
        ModelLoadError: the string has an unknown or wrong setting.
    """
    spec = parse_table(model)
    return TableEngine(
        random_table(spec),
        spec.order,
        limits=limits,
        vocabulary=spec_vocabulary(spec, model),
        accepts_tensors=bool(spec.tensors),
    )


def parse_table(model: str) -> TableSpec:
    """Read `table:name=value,...`.

    Raises:
        ModelLoadError: the string has an unknown or wrong setting.
    """
    text = NameSettings(model, "a table")
    spec = text.read(model.removeprefix(PREFIX), TableSpec)
    text.require(2 <= spec.vocab <= MAX_VOCABULARY, "vocab", spec.vocab, f"2 to {MAX_VOCABULARY}")
    if spec.letters:
        text.require(spec.vocab > len(LETTERS), "vocab", spec.vocab, f"more than {len(LETTERS)} where it has letters")
        text.require(spec.end in (-1, *range(len(LETTERS), spec.vocab)), "end", spec.end, "no letter")
    text.require(1 <= spec.order <= 8, "order", spec.order, "1 to 8")
    text.require(-1 <= spec.end < spec.vocab, "end", spec.end, f"-1 to {spec.vocab - 1}")
    text.require(spec.seed >= 0 and spec.noise_seed >= 0, "a seed", min(spec.seed, spec.noise_seed), "0 or more")
    for name in ("sharpness", "noise"):
        text.require(math.isfinite(value := getattr(spec, name)), name, value, "a finite number")
    return spec


def random_table(spec: TableSpec) -> Floats:
    """float32 [num_rows, vocab]: normal logits; rows are vocab ** order, or as many as MAX_TABLE_ENTRIES allows."""
    shape = (min(spec.vocab**spec.order, max(2, MAX_TABLE_ENTRIES // spec.vocab)), spec.vocab)
    table = np.random.default_rng(spec.seed).standard_normal(shape, dtype=np.float32) * np.float32(spec.sharpness)
    if spec.noise:
        noise = np.random.default_rng(spec.noise_seed).standard_normal(shape, dtype=np.float32)
        table += noise * np.float32(spec.noise)
    return table


def spec_vocabulary(spec: TableSpec, name: str) -> Vocabulary:
    """The words that go with a table."""
    make = letter_vocabulary if spec.letters else word_vocabulary
    return make(spec.vocab, name, (spec.end,) if spec.end >= 0 else ())
