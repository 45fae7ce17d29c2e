"""What every task gives: the prompt of the device and that of the cloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from skydraft.core import Prompt, SegmentKind, ShareLevel, TokenSegment

Encode: TypeAlias = Callable[[str], Sequence[int]]  # what a template wrote -> token ids, no start token added


class PromptPair(NamedTuple):
    """One task as the two sides see it.

    edge: with the evidence.
    cloud: what the share level lets the cloud see; None: nothing may leave the device.
    """

    edge: Prompt
    cloud: Prompt | None


def token_segment(encode: Encode, text: str, kind: SegmentKind = SegmentKind.INSTRUCTION) -> TokenSegment:
    """Turn text into a segment of its token ids."""
    return TokenSegment(tuple(encode(text)), kind)


def prompt_pair(with_evidence: Prompt, instruction_only: Prompt, share: ShareLevel) -> PromptPair:
    """Give the device the evidence, and the cloud what the share level lets it see."""
    match share:
        case ShareLevel.NONE:
            return PromptPair(with_evidence, None)
        case ShareLevel.TOKENS:
            return PromptPair(with_evidence, instruction_only)
        case ShareLevel.FEATURES:
            return PromptPair(with_evidence, with_evidence)
