"""A tiny model, and one engine for all tests: vLLM takes half a minute to import and to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from skydraft.engines.external.text_engine import TextEngine
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings

MAX_LENGTH = 512


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama whose heads are as wide as vLLM's attention on CPUs wants them."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tests.engines import folders

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=folders.VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.3,
    )
    path = tmp_path_factory.mktemp("llama")
    AutoModelForCausalLM.from_config(config).save_pretrained(path)  # type: ignore[no-untyped-call]
    folders.word_tokenizer().save(str(path / "tokenizer.json"))
    (path / "generation_config.json").write_text('{"eos_token_id": [1]}')
    return path


@pytest.fixture(scope="session")
def shared_engine(folder: Path) -> TextEngine:
    engine = load_engine(f"vllm:{folder}", "target", EngineSettings(num_slots=5, num_threads=1))
    assert isinstance(engine, TextEngine)
    return engine


@pytest.fixture
def engine(shared_engine: TextEngine) -> Iterator[TextEngine]:
    """The engine, all slots free before and after."""
    yield shared_engine
    for slot in range(shared_engine.limits.num_slots):
        with suppress(ValueError):
            shared_engine.close(slot)
