"""A GGUF file opened by llama.cpp: its metadata, its vocabulary, and llama.cpp's own error messages."""

from __future__ import annotations

import ctypes
import os
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp

from skydraft.errors import ModelLoadError
from skydraft.text.vocabulary import Vocabulary

_METADATA_BYTES = 64
_ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR
_FUNCTION_NAME = re.compile(r"^\w+: ")
_complaints: ContextVar[list[str] | None] = ContextVar("llama.cpp complaints", default=None)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _hear(level: int, text: bytes, _: object) -> None:
    lines = _complaints.get()
    if level == _ERROR_LEVEL and lines is not None:
        lines.append(text.decode(errors="replace").strip())


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Collect the errors in llama.cpp's log, which alone says why a call failed; print nothing of it."""
    llama_cpp.llama_log_set(_hear, None)
    lines: list[str] = []
    token = _complaints.set(lines)
    try:
        yield lines
    finally:
        _complaints.reset(token)


def reason(lines: list[str]) -> str:
    """The first complaint: those after it only say that something failed."""
    return _FUNCTION_NAME.sub("", lines[0]).rstrip(".") if lines else "it does not say why"


class _FileState(NamedTuple):
    """Which file it is, as it is now: another one may be written to the same path."""

    path: Path
    num_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> _FileState:
        status = path.stat()
        return cls(path.absolute(), status.st_size, status.st_mtime_ns)


# The files that something in this process uses. Weak, so that it keeps none of them: what is in here only saves time.
_in_use: weakref.WeakValueDictionary[_FileState, LlamaFile] = weakref.WeakValueDictionary()


def open_without_weights(path: Path) -> LlamaFile:
    """Read what a file says of itself; a file that is in use is not opened again.

    Of a vocabulary of 151,665 tokens that takes 0.8 s of a core, until Python knows it.

    Raises:
        ModelLoadError: as LlamaFile.
    """
    return _in_use.get(_FileState.of(path)) or LlamaFile(path)


class LlamaFile:
    """A model in memory; given back when the object is.

    Args:
        params: llama_model_params; None reads what the file says of itself, and no weights.
    Raises:
        ModelLoadError: it is not a GGUF file, is damaged, or has a model that llama.cpp does not know.
    """

    def __init__(self, path: Path, params: Any = None) -> None:
        self.path = path
        self.name = path.stem
        with complaints() as lines:
            llama_cpp.llama_backend_init()
            self.model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params or _no_weights())
        if not self.model:
            raise ModelLoadError(f"llama.cpp cannot load {path}: {reason(lines)}")
        # Not at exit: another thread may be computing with it, and the system takes the memory anyway.
        weakref.finalize(self, llama_cpp.llama_model_free, self.model).atexit = False
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        if not llama_cpp.llama_vocab_n_tokens(self.vocab):
            raise ModelLoadError(f"{path} has no tokenizer: convert the model together with its tokenizer")
        self._state = _FileState.of(path)
        _in_use.setdefault(self._state, self)

    @property
    def chat_template(self) -> str | None:
        """The Jinja template for conversations; None where the file has no template."""
        source = llama_cpp.llama_model_chat_template(self.model, None)
        return None if source is None else source.decode(errors="replace")

    @property
    def is_sentencepiece(self) -> bool:
        """Whether words begin with a marked space, as in Llama 2 and Gemma."""
        return bool(llama_cpp.llama_vocab_type(self.vocab) == llama_cpp.LLAMA_VOCAB_TYPE_SPM)

    @property
    def has_space_before_text(self) -> bool:
        """Whether the tokenizer puts a space before a text, which is no part of it."""
        stated = self._metadata("tokenizer.ggml.add_space_prefix")
        return stated == "true" if stated else self.is_sentencepiece

    @property
    def num_cache_values(self) -> int:
        """How many numbers the KV cache keeps of a token."""
        head_dim = llama_cpp.llama_model_n_embd(self.model) // llama_cpp.llama_model_n_head(self.model)
        stated = [self._stated(f"attention.{name}_length") or head_dim for name in ("key", "value")]
        num_heads = llama_cpp.llama_model_n_head_kv(self.model) * llama_cpp.llama_model_n_layer(self.model)
        return int(sum(stated) * num_heads)

    @property
    def has_experts(self) -> bool:
        """Whether it is a mixture of experts."""
        return bool(self._stated("expert_count"))

    def special_tokens(self) -> dict[str, str]:
        """What a chat template may name: bos_token, eos_token, pad_token, as far as the file has them."""
        ids = {
            "bos_token": llama_cpp.llama_vocab_bos(self.vocab),
            "eos_token": llama_cpp.llama_vocab_eos(self.vocab),
            "pad_token": llama_cpp.llama_vocab_pad(self.vocab),
        }
        return {name: self._spelling(index) for name, index in ids.items() if index != llama_cpp.LLAMA_TOKEN_NULL}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The id -> token map; tokens are spelled as in a tokenizer.json of the same model."""
        same = _in_use.get(self._state, self)
        return self._read_vocabulary() if same is self else same.vocabulary

    def _read_vocabulary(self) -> Vocabulary:
        size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        end_ids = tuple(index for index in range(size) if llama_cpp.llama_vocab_is_eog(self.vocab, index))
        return Vocabulary(self.name, tuple(map(self._token, range(size))), size, end_ids)

    def has_attribute(self, token_id: int, attributes: int) -> bool:
        """Whether a token has one of these LLAMA_TOKEN_ATTR_ flags."""
        return bool(llama_cpp.llama_vocab_get_attr(self.vocab, token_id) & attributes)

    def _stated(self, name: str) -> int | None:
        """A number that the file states of its kind of model."""
        architecture = self._metadata("general.architecture")
        value = self._metadata(f"{architecture}.{name}")
        return int(value) if value.isdecimal() else None

    def _metadata(self, key: str) -> str:
        """A short entry of the file's header; empty where it has none."""
        buffer = ctypes.create_string_buffer(_METADATA_BYTES)
        llama_cpp.llama_model_meta_val_str(self.model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    def _token(self, token_id: int) -> str | None:
        spelling = self._spelling(token_id)
        # What llama.cpp's converter writes where the model has more rows than the tokenizer has tokens.
        is_hole = spelling == f"[PAD{token_id}]" and self.has_attribute(token_id, llama_cpp.LLAMA_TOKEN_ATTR_UNUSED)
        return None if is_hole else spelling

    def _spelling(self, token_id: int) -> str:
        text: bytes = llama_cpp.llama_vocab_get_text(self.vocab, token_id)
        return text.decode(errors="surrogateescape")


def _no_weights() -> Any:
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    return params
