"""Models that llama.cpp runs: the path of a GGUF file, or owner/name/file.gguf on Hugging Face."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from skydraft.engines.base import Engine
from skydraft.engines.model_kind import ModelKind, stated_max_length
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ModelLoadError, first_line
from skydraft.text.chat_template import ChatTemplate
from skydraft.text.checkpoint import Role
from skydraft.text.tokenizer import Tokenizer

SUFFIX = ".gguf"


def find_gguf(model: str) -> Path:
    """Resolve a path, or owner/name/file.gguf on Hugging Face; that is fetched, or taken from the local cache.

    Raises:
        ModelLoadError: there is no such file, it cannot be fetched, or llama.cpp is not installed.
    """
    if importlib.util.find_spec("llama_cpp") is None:
        raise ModelLoadError(
            f"{model} needs llama-cpp-python, which skydraft's llamacpp extra brings: pip install 'skydraft[llamacpp]'"
        )
    path = Path(model).expanduser()
    if path.is_file():
        return path
    if model.count("/") != 2 or model.startswith((".", "/", "~")):
        raise ModelLoadError(
            f"there is no file {model}; give the path of a GGUF file, or owner/name/file.gguf for one on Hugging Face"
        )
    return _fetch(model)


def _load_engine(source: str, role: Role, settings: EngineSettings) -> Engine:
    path = find_gguf(source)
    from skydraft.engines.llamacpp.load import load_llamacpp

    return load_llamacpp(path, role, settings)


def _load_tokenizer(source: str, role: Role) -> Tokenizer:
    path = find_gguf(source)
    from skydraft.engines.llamacpp.tokenizer import load_gguf_tokenizer

    return load_gguf_tokenizer(path)


def _load_chat_format(source: str, role: Role) -> ChatTemplate | None:
    path = find_gguf(source)
    from skydraft.engines.llamacpp.tokenizer import load_gguf_chat_template

    return load_gguf_chat_template(path)


def _fetch(model: str) -> Path:
    import huggingface_hub  # only a Hugging Face name needs it, and it comes with `tokenizers`

    owner, name, file = model.split("/")
    try:
        return Path(huggingface_hub.hf_hub_download(f"{owner}/{name}", file))
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"{model} is no file, and it cannot be fetched from Hugging Face ({first_line(error)}): check the name and "
            "the connection, or download it elsewhere and give its path"
        ) from error


LLAMA_CPP = ModelKind(
    includes=lambda source: source.lower().endswith(SUFFIX),
    load_engine=_load_engine,
    load_tokenizer=_load_tokenizer,
    load_chat_format=_load_chat_format,
    find_max_length=stated_max_length,
    find_files=lambda source, role: [find_gguf(source)],
)
