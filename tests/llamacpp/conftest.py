"""Tiny GGUF files and Hugging Face folders with the same weights and tokens, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from skydraft.engines.base import Engine
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings


@pytest.fixture(scope="session", autouse=True)
def no_open_files() -> Iterator[None]:
    """Close what llama_cpp opens when it is imported and leaves open."""
    yield
    from llama_cpp import _utils

    for file in (_utils.outnull_file, _utils.errnull_file):
        file.close()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The file of a tiny llama: written("F32", seed=1)."""
    made: dict[tuple[str, int], Path] = {}

    def path(kind: str = "F32", seed: int = 0) -> Path:
        from gguf import GGMLQuantizationType

        from tests.llamacpp import files

        if (kind, seed) not in made:
            tokens = files.sentencepiece_tokens()
            made[kind, seed] = files.write_gguf(
                tmp_path_factory.mktemp("gguf") / f"llama-{kind.lower()}-{seed}.gguf",
                files.random_weights(seed, len(tokens.pieces)),
                tokens,
                kind=GGMLQuantizationType[kind],
            )
        return made[kind, seed]

    return path


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with the weights and tokens of the first file."""
    from tests.llamacpp import files, folders

    tokens = files.sentencepiece_tokens()
    return folders.save_twin(tmp_path_factory.mktemp("twin"), files.random_weights(0, len(tokens.pieces)), tokens)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a random quantised llama of four layers: miniature("Q4_K_S"); "Q5_0 experts" has experts."""
    made: dict[str, Path] = {}

    def find(kind: str) -> Path:
        from tests.llamacpp import files

        if kind not in made:
            quantisation, _, experts = kind.partition(" ")
            path = tmp_path_factory.mktemp("miniature") / f"{quantisation.lower()}.gguf"
            config = files.EXPERTS if experts else files.MINIATURE
            made[kind] = files.write_miniature(path, quantisation, config)
        return made[kind]

    return find


@pytest.fixture
def start(written: Callable[..., Path]) -> Callable[..., Engine]:
    """Load the first file: start(num_slots=4), or another: start("Q8_0"); with a cache of float32."""

    def load(kind: str = "F32", **settings: object) -> Engine:
        asked = replace(EngineSettings(num_threads=1, fast_math=True), **settings)
        return load_engine(str(written(kind)), "target", asked)

    return load
