"""What a text is to answer, made ready for the models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from skydraft.core import Grammar
from skydraft.tasks.base import PromptPair


class ReadyPrompt(NamedTuple):
    """As `Device.ready_prompt` and `Device.ready_chat` make it, for any number of texts.

    private_kinds: of what is private in the words that would leave the device. question: by which it is kept and
        answered again; None: it is not.
    expected_ids: tokens that the text is expected to be; none: nothing is expected.
    kind: of text, as a job has it.
    """

    prompts: PromptPair
    private_kinds: Sequence[str]
    question: str | None
    expected_ids: Sequence[int]
    grammar: Grammar | None
    kind: str = ""
