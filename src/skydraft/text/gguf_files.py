"""Where a GGUF file is. Needs no llama.cpp."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from skydraft.errors import ModelLoadError, first_line

SUFFIX = ".gguf"


def is_gguf(model: str) -> bool:
    """Whether a model's name says that llama.cpp is to run it."""
    return model.lower().endswith(SUFFIX)


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
