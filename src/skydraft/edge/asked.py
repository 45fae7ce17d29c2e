"""What a text is to answer, made ready for the models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from skydraft.core import Grammar
from skydraft.tasks.base import PromptPair


class Asked(NamedTuple):
    """As `Device.ask` and `Device.ask_chat` make it, for any number of texts.

    words: of it that would leave the device. question: by which it is kept and answered again; None: it is not.
    expected_ids: tokens that the text is expected to be; none: nothing is expected.
    kind: of text, as a job has it.
    """

    prompts: PromptPair
    words: Sequence[str]
    question: str | None
    expected_ids: Sequence[int]
    grammar: Grammar | None
    kind: str = ""
