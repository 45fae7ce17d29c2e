"""The tokenizer inside a GGUF file."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp

from skydraft.engines.llamacpp.file import LlamaFile, open_without_weights
from skydraft.errors import ModelLoadError
from skydraft.text.chat_template import ChatTemplate

_SPACE = "▁"  # as SentencePiece spells it
_MOST_BYTES_OF_TOKEN = 16  # a first guess


class GgufTokenizer:
    """Text to token ids and back, as llama.cpp does it.

    Raises:
        ModelLoadError: the vocabulary cannot spell a space.
    """

    def __init__(self, file: LlamaFile) -> None:
        self._file = file
        self.vocabulary = file.vocabulary
        self._ids = {token: index for index, token in enumerate(self.vocabulary.tokens) if token is not None}
        self._has_space_before = file.has_space_before_text
        self._spells_all = not file.is_sentencepiece or all(f"<0x{byte:02X}>" in self._ids for byte in range(256))
        if not self._spells_all and not self._spells(" "):  # llama.cpp begins every text with one
            raise ModelLoadError(f"{file.path} has a SentencePiece vocabulary without a space: convert the model again")

    def encode(self, text: str, add_special: bool = False) -> tuple[int, ...]:
        ids = self._tokenize(text, add_special, parse_special=True)
        start_id = llama_cpp.llama_vocab_bos(self._file.vocab)
        # A text that begins with the start token has it already.
        return ids[1:] if add_special and ids[:2] == (start_id, start_id) else ids

    def encode_plain(self, text: str) -> tuple[int, ...]:
        return self._tokenize(text, add_special=False, parse_special=False)

    def _tokenize(self, text: str, add_special: bool, parse_special: bool) -> tuple[int, ...]:
        data = self._spellable(text).encode(errors="replace")

        def tokenize(buffer: Any, size: int) -> int:
            count: int = llama_cpp.llama_tokenize(
                self._file.vocab, data, len(data), buffer, size, add_special, parse_special
            )
            return count

        return tuple(_filled(tokenize, llama_cpp.llama_token, len(data) + 2))

    def decode(self, token_ids: Sequence[int]) -> str:
        # Not llama_detokenize, which tidies spaces before punctuation: what a stream has shown could not be taken back.
        data = b"".join(map(self._piece, token_ids))
        return (data.removeprefix(b" ") if self._has_space_before else data).decode(errors="replace")

    def token_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def spelling(self) -> Sequence[bytes]:
        names = enumerate(self.vocabulary.tokens)
        return [self._piece(token_id) or b"\xff" + (name or "").encode() for token_id, name in names]

    def _spellable(self, text: str) -> str:
        """The text with the unknown token for characters that llama.cpp would end the process for."""
        if self._spells_all:
            return text
        return "".join(char if self._spells(char) else self._unknown for char in text)

    @cached_property
    def _unknown(self) -> str:
        """What stands for text that has no tokens; nothing where there is no such token."""
        attribute = llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        found = (token for token, index in self._ids.items() if self._file.has_attribute(index, attribute))
        return next(found, "")

    def _spells(self, char: str) -> bool:
        char = _SPACE if char == " " else char
        return char in self._ids or all(f"<0x{byte:02X}>" in self._ids for byte in char.encode(errors="replace"))

    def _piece(self, token_id: int) -> bytes:
        """The text of a token; special ones have none."""
        if self.vocabulary.token(token_id) is None:
            return b""

        def write(buffer: Any, size: int) -> int:
            count: int = llama_cpp.llama_token_to_piece(self._file.vocab, token_id, buffer, size, 0, False)
            return count

        return bytes(_filled(write, ctypes.c_char, _MOST_BYTES_OF_TOKEN))


def load_gguf_tokenizer(path: Path) -> GgufTokenizer:
    """Read a GGUF file's tokenizer, and no weights.

    Raises:
        ModelLoadError: it is no GGUF file that llama.cpp can read.
    """
    return GgufTokenizer(open_without_weights(path))


def load_gguf_chat_template(path: Path) -> ChatTemplate | None:
    """The chat template in a GGUF file; None where it has none.

    Raises:
        ModelLoadError: it is no GGUF file that llama.cpp can read, or its template has an error.
    """
    file = open_without_weights(path)
    return None if file.chat_template is None else ChatTemplate(file.chat_template, file.special_tokens())


def _filled(fill: Callable[[Any, int], int], kind: Any, size: int) -> Any:
    """Call a function of llama.cpp that fills a buffer, and again where it returns minus the size that it needs."""
    buffer = (kind * size)()
    count = fill(buffer, size)
    if count < 0:
        buffer = (kind * -count)()
        count = fill(buffer, -count)
    return buffer[:count]
