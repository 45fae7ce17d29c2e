import importlib.util
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from skydraft.engines.llamacpp.kind import LLAMA_CPP, find_gguf
from skydraft.engines.load import load_chat_format, load_engine, load_tokenizer
from skydraft.errors import ModelLoadError
from skydraft.text.checkpoint import Role


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.parametrize("load", [load_engine, load_tokenizer, load_chat_format])
def test_a_missing_extra_comes_with_the_command(
    monkeypatch: pytest.MonkeyPatch, load: Callable[[str, Role], object]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelLoadError, match=r"x.gguf needs llama-cpp-python.*pip install 'skydraft\[llamacpp\]'"):
        load("x.gguf", "draft")


def test_the_ending_says_what_runs_a_model() -> None:
    assert LLAMA_CPP.includes("models/Qwen-Q4_0.GGUF")
    assert not LLAMA_CPP.includes("someone/model-GGUF")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("model", ["gone.gguf", "a/gone.gguf", "/a/b/gone.gguf", "./a/gone.gguf", "a/b/c/gone.gguf"])
def test_what_is_no_name_is_not_looked_for_on_the_network(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: pytest.fail("went to the network"))
    with pytest.raises(ModelLoadError, match=f"there is no file {model}; give the path of a GGUF file"):
        find_gguf(model)


@pytest.mark.usefixtures("installed")
def test_a_name_on_hugging_face_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: str(tmp_path / name / file))
    assert find_gguf("someone/tiny-GGUF/tiny.gguf") == tmp_path / "someone" / "tiny-GGUF" / "tiny.gguf"


@pytest.mark.usefixtures("installed")
def test_a_name_that_cannot_be_fetched_gives_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise huggingface_hub.errors.LocalEntryNotFoundError("Got: ConnectError: no route\nand more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(ModelLoadError, match=r"cannot be fetched from Hugging Face \(Got: ConnectError: no route\)"):
        find_gguf("someone/tiny-GGUF/tiny.gguf")


@pytest.mark.usefixtures("installed")
def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.touch()
    assert find_gguf(str(path)) == path
