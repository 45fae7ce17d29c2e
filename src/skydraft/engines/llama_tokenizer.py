"""The tokenizer inside a GGUF file."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp

from skydraft.engines.chat import ChatTemplate
from skydraft.engines.llama_file import LlamaFile
from skydraft.engines.vocabulary import Vocabulary

_NO_TEXT = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
_MOST_BYTES_OF_TOKEN = 16  # a first guess


class GgufTokenizer:
    """Text to token ids and back, as llama.cpp does it."""

    def __init__(self, file: LlamaFile) -> None:
        self._file = file
        self._vocabulary = file.read_vocabulary()
        self._ids = {token: index for index, token in enumerate(self._vocabulary.tokens) if token is not None}

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    def encode(self, text: str, add_special: bool = False) -> tuple[int, ...]:
        data = text.encode(errors="replace")

        def tokenize(buffer: Any, size: int) -> int:
            count: int = llama_cpp.llama_tokenize(self._file.vocab, data, len(data), buffer, size, add_special, True)
            return count

        return tuple(_filled(tokenize, llama_cpp.llama_token, len(data) + 2))

    def decode(self, token_ids: Sequence[int]) -> str:
        # Left out here and not by llama.cpp, where a special token takes the place of the first word at a text's
        # beginning, the one that loses its space.
        ids = [index for index in token_ids if self._has_text(index)]
        tokens = (llama_cpp.llama_token * len(ids))(*ids)

        def detokenize(buffer: Any, size: int) -> int:
            count: int = llama_cpp.llama_detokenize(self._file.vocab, tokens, len(ids), buffer, size, False, False)
            return count

        return bytes(_filled(detokenize, ctypes.c_char, _MOST_BYTES_OF_TOKEN * len(ids))).decode(errors="replace")

    def token_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def _has_text(self, token_id: int) -> bool:
        is_token = self._vocabulary.token(token_id) is not None
        return is_token and not self._file.has_attribute(token_id, _NO_TEXT)


def load_gguf_tokenizer(path: Path) -> GgufTokenizer:
    """Read a GGUF file's tokenizer, and no weights.

    Raises:
        ModelLoadError: it is no GGUF file that llama.cpp can read.
    """
    return GgufTokenizer(LlamaFile(path))


def load_gguf_chat_template(path: Path) -> ChatTemplate | None:
    """The chat template in a GGUF file; None where it has none.

    Raises:
        ModelLoadError: it is no GGUF file that llama.cpp can read, or its template is none.
    """
    file = LlamaFile(path)
    return None if file.chat_template is None else ChatTemplate(file.chat_template, file.special_tokens())


def _filled(fill: Callable[[Any, int], int], kind: Any, size: int) -> Any:
    """What a function of llama.cpp writes into a buffer; it returns minus the size that it needs where it is short."""
    buffer = (kind * size)()
    count = fill(buffer, size)
    if count < 0:
        buffer = (kind * -count)()
        count = fill(buffer, -count)
    return buffer[:count]
