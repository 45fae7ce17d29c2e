"""What every task makes: the prompts of the device and of the cloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from skydraft.core import Prompt, ShareLevel

Encode: TypeAlias = Callable[[str], Sequence[int]]  # the text of a template -> token ids, without a start token


class PromptPair(NamedTuple):
    """One task as the two sides see it.

    edge: with the evidence.
    cloud: what the share level allows; None: nothing may leave the device.
    """

    edge: Prompt
    cloud: Prompt | None

    @property
    def does_cloud_see_all(self) -> bool:
        """Whether the cloud's prompt is the device's, evidence and all."""
        return self.cloud == self.edge


def prompt_pair(with_evidence: Prompt, instruction_only: Prompt, share: ShareLevel) -> PromptPair:
    """Pair the device's prompt with the one that the share level allows the cloud."""
    match share:
        case ShareLevel.NONE:
            return PromptPair(with_evidence, None)
        case ShareLevel.TOKENS:
            return PromptPair(with_evidence, instruction_only)
        case ShareLevel.FEATURES:
            return PromptPair(with_evidence, with_evidence)
