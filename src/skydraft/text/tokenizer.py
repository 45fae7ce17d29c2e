"""Text to token ids and back, without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from skydraft.errors import ModelLoadError
from skydraft.text.checkpoint import Checkpoint, read_json
from skydraft.text.vocabulary import Vocabulary

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
MAX_HELD_TOKENS = 8  # a character has at most 4 bytes: what is still unfinished after 8 tokens is not text

CONTROL_NAME = re.compile(r"<[|\uff5c].*[|\uff5c]>")  # also where no file calls it special, as in DeepSeek's
NEVER_SCORE = -1e9  # far below that of any other way to spell a text


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    def encode(self, text: str, add_special: bool = False) -> tuple[int, ...]:
        """Token ids of what a template or a program wrote: special tokens in it are read as such.

        Args:
            add_special: with those that the model wants around a text, such as a start token, once.
        """

    def encode_plain(self, text: str) -> tuple[int, ...]:
        """Token ids of what a person wrote: the name of a special token in it is ordinary text."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special ones left out; bytes that are no UTF-8 become U+FFFD."""

    def token_id(self, token: str) -> int | None:
        """The id of one token as the vocabulary spells it, for example "<|audio_bos|>"."""

    def spelling(self) -> str | Sequence[bytes]:
        """How its ids spell text: the content of a tokenizer.json, or the bytes of each id, ff before special ones."""


class FolderTokenizer:
    """The tokenizer.json of a model folder.

    Raises:
        ModelLoadError: the folder has no tokenizer.json, or it cannot be read.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._tokenizer = _read_tokenizer(checkpoint.folder)
        self.vocabulary = self._describe()
        content = json.loads(self._tokenizer.to_str())
        if _mark_special(content, self._special_ids()):
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
        self._plain_tokenizer = _plain_tokenizer(content)

    def encode(self, text: str, add_special: bool = False) -> tuple[int, ...]:
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not add_special:
            return tuple(ids)
        whole = self._tokenizer.encode(text, add_special_tokens=True).ids
        num_before = next((i for i in range(len(whole)) if whole[i : i + len(ids)] == ids), 0)
        # A text that begins with the start token has it already.
        has_start = bool(num_before) and ids[:num_before] == whole[:num_before]
        return tuple(whole[num_before:] if has_start else whole)

    def encode_plain(self, text: str) -> tuple[int, ...]:
        return tuple(self._plain_tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def token_id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def spelling(self) -> str:
        return str(self._tokenizer.to_str())

    def _describe(self) -> Vocabulary:
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        size = self.checkpoint.vocabulary_size or max(ids.values(), default=-1) + 1
        return Vocabulary(self.checkpoint.name, _by_id(ids, size), size, self._end_ids())

    def _special_ids(self) -> dict[str, int]:
        """What a model's files call special, beside the flags in tokenizer.json, which some leave out."""
        folder, found = self.checkpoint.folder, set[str]()
        settings = read_json(folder / "tokenizer_config.json", is_required=False)
        for config in (read_json(folder / "special_tokens_map.json", is_required=False), settings):
            named = [value for name, value in config.items() if name.endswith("_token")]
            for name in ("additional_special_tokens", "extra_special_tokens"):
                more = config.get(name) or []
                named += list(more.values()) if isinstance(more, dict) else more
            found.update(filter(None, map(_content, named)))
        added = settings.get("added_tokens_decoder") or {}
        found.update(filter(None, (_content(entry) for entry in added.values() if entry.get("special"))))
        found.update(filter(None, map(self.vocabulary.token, filter(self._has_a_name, self.vocabulary.end_ids))))
        ids = {name: self.token_id(name) for name in found}
        return {name: token_id for name, token_id in ids.items() if token_id is not None}

    def _has_a_name(self, end_id: int) -> bool:
        """A line break that ends a text is text."""
        return bool(self._tokenizer.decode([end_id], skip_special_tokens=False).strip())

    def _end_ids(self) -> tuple[int, ...]:
        """What ends a text: the first of the files that says so, in the order in which Hugging Face reads them."""
        generation = read_json(self.checkpoint.folder / "generation_config.json", is_required=False)
        for config in (generation, self.checkpoint.config, self.checkpoint.text_config):
            stated = config.get("eos_token_id")
            if stated is not None:
                return tuple(stated) if isinstance(stated, list) else (int(stated),)
        settings = read_json(self.checkpoint.folder / "tokenizer_config.json", is_required=False)
        token = special_token(settings, "eos_token")
        found = None if token is None else self.token_id(token)
        return () if found is None else (found,)


class TextStream:
    """Turns token ids into text as they come.

    A piece is withheld while its last character is unfinished. Each id is decoded together with those before it:
    tokenizers drop the space before the first word of what they are given. What was given out stands: where later ids
    would change it, they are decoded by themselves, so that nothing of them is lost.

    Args:
        context_ids: what stands before, when the text continues it; without, the text is a new one.
    """

    def __init__(self, tokenizer: Tokenizer, context_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._shown_ids = list(context_ids[-MAX_HELD_TOKENS:])
        self._held_ids: list[int] = []

    def feed(self, token_ids: Sequence[int]) -> str:
        """The finished text that these ids add."""
        return "".join(map(self._step, token_ids))

    def flush(self) -> str:
        """The rest of the text, which ends here."""
        return self._release(self._held_text())

    def _step(self, token_id: int) -> str:
        self._held_ids.append(token_id)
        text = self._held_text()
        if text.endswith(UNFINISHED) and len(self._held_ids) <= MAX_HELD_TOKENS:
            return ""
        return self._release(text)

    def _held_text(self) -> str:
        before = self._tokenizer.decode(self._shown_ids)
        text = self._tokenizer.decode(self._shown_ids + self._held_ids)
        return text.removeprefix(before) if text.startswith(before) else self._tokenizer.decode(self._held_ids)

    def _release(self, text: str) -> str:
        # Ids without text of their own stay in view: the next word's space must not become the first of its window.
        self._shown_ids = self._held_ids if text else (self._shown_ids + self._held_ids)[-MAX_HELD_TOKENS:]
        self._held_ids = []
        return text


def special_token(config: Mapping[str, Any], name: str) -> str | None:
    """A token named in a tokenizer_config.json: a string, or a table with its content."""
    return _content(config.get(name))


def _content(stated: object) -> str | None:
    """A token as files state it: a string, or a table with its content."""
    token = stated.get("content") if isinstance(stated, dict) else stated
    return token if isinstance(token, str) and token else None


def _mark_special(content: dict[str, Any], special_ids: Mapping[str, int]) -> bool:
    """Make these tokens special in the content of a tokenizer.json, and find special ones in the text as it is written.

    A normaliser that puts a space before every text would hide their names.

    Returns:
        Whether that is a change.
    """
    added = {entry["content"]: entry for entry in content["added_tokens"]}
    before = {name: dict(entry) for name, entry in added.items()}
    for name, token_id in special_ids.items():
        entry = {"id": token_id, "content": name, "single_word": False, "lstrip": False, "rstrip": False}
        added.setdefault(name, entry)["special"] = True
    for entry in added.values():
        if entry["special"]:
            entry["normalized"] = False
    content["added_tokens"] = sorted(added.values(), key=lambda entry: int(entry["id"]))
    return added != before


def _plain_tokenizer(content: dict[str, Any]) -> tokenizers.Tokenizer:
    """Takes the name of a special token for ordinary text. The content is changed for it."""
    for entry in content["added_tokens"]:
        entry["special"] = entry["special"] or bool(CONTROL_NAME.fullmatch(entry["content"]))
    model = content["model"]
    if model["type"] == "Unigram":  # it would find the names among its pieces
        special_ids = {entry["id"] for entry in content["added_tokens"] if entry["special"]} - {model["unk_id"]}
        for token_id in special_ids:
            if token_id < len(model["vocab"]):
                model["vocab"][token_id][1] = NEVER_SCORE
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _by_id(ids: Mapping[str, int], size: int) -> tuple[str | None, ...]:
    tokens: list[str | None] = [None] * size
    for token, token_id in ids.items():
        if token_id < size:
            tokens[token_id] = token
    return tuple(tokens)


def _read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelLoadError(f"{folder} has no tokenizer.json: save the model's fast tokenizer there")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exception for every kind of wrong content
        raise ModelLoadError(f"{path} is not a tokenizer that this version can read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
