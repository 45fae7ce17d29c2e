"""Tiny models in folders, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from transformers.utils import logging

from skydraft.engines.huggingface.slot_engine import SlotEngine
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from tests.engines import folders


@pytest.fixture(scope="session", autouse=True)
def no_progress_bars() -> None:
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """The folder of a tiny model: llama, qwen2 or omni; or of the real text model, target."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind == "target":
            pair: Path = request.getfixturevalue("text_pair")
            return pair / "target"
        if kind not in made:
            torch.manual_seed(0)
            made[kind] = getattr(folders, f"save_{kind}")(tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture
def start(saved: Callable[[str], Path]) -> Callable[..., SlotEngine]:
    """Load one of the saved models: start("llama", num_slots=4)."""

    def load(kind: str, **settings: object) -> SlotEngine:
        engine = load_engine(str(saved(kind)), "target", replace(EngineSettings(), **settings))
        assert isinstance(engine, SlotEngine)
        return engine

    return load
