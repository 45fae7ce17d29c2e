"""A text that a device is to write, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from skydraft.config import DeviceSettings
from skydraft.core import AcceptanceRule, Evidence, SamplingParams, TextPiece
from skydraft.decoding.lookup import LookupSources
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.kept_connection import KeptConnection
from skydraft.edge.patience import Patience
from skydraft.edge.text_pace import TextPace
from skydraft.policies.gate import Gate
from skydraft.policies.way import Way
from skydraft.tasks.base import PromptPair
from skydraft.text.token_reader import TokenReader
from skydraft.text.vocabulary import Vocabulary

OnText = Callable[[Sequence[TextPiece]], None]
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A text to write: the device's settings, and what has been made of them for this text.

    settings: of them a job needs mode, share, objective, block_length, max_escalated, pad and strict.
    vocabulary: of the draft model, or of the tokenizer where the cloud writes alone.
    reader: makes text of what is written.
    gate: which blocks the cloud is asked about; where the evidence leaves when the device is unsure, also when that is.
    evidence: when it leaves; `unsure` only where there is some that may.
    address: of the cloud; None in mode edge.
    kept: the connection of the conversation that the text belongs to; None: it has one of its own.
    way: to draft under `exact`; None: by measurement.
    sources: of guesses that need no model, beside the prompt and the text; None: nothing is looked up.
    kind: of text: drafts do alike in texts of one kind.
    emotion_tokens: of a caption, with which a word for an emotion begins, and the emotion of each.
    pace: whether the text may grow at the moment.
    """

    settings: DeviceSettings
    prompts: PromptPair
    vocabulary: Vocabulary
    reader: TokenReader
    sampling: SamplingParams
    rule: AcceptanceRule
    gate: Gate
    patience: Patience
    evidence: Evidence = Evidence.ALWAYS
    address: CloudAddress | None = None
    kept: KeptConnection | None = None
    way: Way | None = None
    sources: LookupSources | None = None
    kind: str = ""
    emotion_tokens: Mapping[int, str] = field(default_factory=dict)
    pace: TextPace = field(default_factory=TextPace)
