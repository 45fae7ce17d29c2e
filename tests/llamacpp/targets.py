"""Targets of two slots, and how much of a text the self-test reads with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from skydraft.engines.base import Engine
from skydraft.engines.load import load_engine
from skydraft.engines.self_test import TextLengths
from skydraft.engines.settings import EngineSettings

Miniature = Callable[[str], Path]

SHORT = TextLengths(prompt=24, text=16, blocks=((2, 4), (5, 10), (8, 16)))
LONG = TextLengths(prompt=514, text=15, blocks=((2, 4),))  # from 512 cells on a row is split among threads
WIDE = TextLengths(prompt=24, text=64, blocks=((64, 64),))


def load(path: Path, **settings: object) -> Engine:
    return load_engine(str(path), "target", replace(EngineSettings(num_threads=1, num_slots=2), **settings))
