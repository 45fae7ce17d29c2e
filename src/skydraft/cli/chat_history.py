"""What was said in a chat, and the files that it is saved in."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

import msgspec

from skydraft.errors import ConfigError


class Message(msgspec.Struct, frozen=True):
    """Something that was said, as OpenAI's API has it."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatHistory:
    """A conversation: a system message or none, and then questions with their answers.

    Attributes:
        messages: a question without an answer is the last one, or there is none.
    """

    def __init__(self, system: str | None = None) -> None:
        self.messages = [Message("system", system)] if system else []

    @property
    def for_model(self) -> list[dict[str, str]]:
        """As a chat format takes them."""
        return [msgspec.structs.asdict(message) for message in self.messages]

    def ask(self, text: str) -> None:
        self.messages.append(Message("user", text))

    def answer(self, text: str) -> None:
        """Add what was written to answer the last question; where nothing was, the question is taken back."""
        if text:
            self.messages.append(Message("assistant", text))
        else:
            self.messages.pop()

    def undo(self) -> str | None:
        """Take the last question and its answer back; returns the question, None where none was asked."""
        asked = [index for index, message in enumerate(self.messages) if message.role == "user"]
        if not asked:
            return None
        question = self.messages[asked[-1]].content
        del self.messages[asked[-1] :]
        return question

    def clear(self) -> None:
        """Forget all but the system message."""
        self.messages = [message for message in self.messages if message.role == "system"]

    def save(self, path: Path) -> None:
        """Write the messages as JSON, for their owner's eyes only.

        Raises:
            ConfigError: the file cannot be written, or is there and no saved chat.
        """
        if path.exists():
            _read(path)
        content = msgspec.json.format(msgspec.json.encode(self.messages), indent=2) + b"\n"
        try:
            number, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
            with open(number, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except OSError as error:
            raise ConfigError(f"{str(path)!r} cannot be written: {error.strerror or error}") from None

    def load(self, path: Path) -> None:
        """Go on with a saved chat in the place of this one. Raises: ConfigError: it cannot be read, or is none."""
        self.messages = _read(path)


def _read(path: Path) -> list[Message]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Message])
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} is no saved chat ({error}): name another file") from None
