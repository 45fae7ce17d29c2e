"""Checks of token ids and prompts that engines share."""

from __future__ import annotations

from collections.abc import Sequence

from array_api_compat import array_namespace

from skydraft.core import Prompt, TensorSegment, TokenSegment
from skydraft.engines.base import Array
from skydraft.errors import EngineError, PromptRejected
from skydraft.text.vocabulary import Vocabulary


def check_token_ids(token_ids: Sequence[int], vocabulary_size: int) -> None:
    """Refuse ids that have no row in the logits.

    Raises:
        EngineError: naming the first such id.
    """
    if len(token_ids) and not 0 <= min(token_ids) <= max(token_ids) < vocabulary_size:
        wrong = next(token_id for token_id in token_ids if not 0 <= token_id < vocabulary_size)
        raise EngineError(f"token id {wrong} is outside of the model's vocabulary of {vocabulary_size} ids")


def check_prompt(token_ids: Sequence[int], vocabulary_size: int) -> None:
    """Refuse a prompt without tokens, or with ids that have no row in the logits.

    Raises:
        PromptRejected: with the reason.
    """
    if not len(token_ids):
        raise PromptRejected("the prompt has no token: a model needs at least one to begin from")
    try:
        check_token_ids(token_ids, vocabulary_size)
    except EngineError as error:
        raise PromptRejected(f"in the prompt, {error}") from error


def text_ids(prompt: Prompt) -> list[int]:
    """All token ids of a prompt's token segments, in order."""
    segments = (segment for segment in prompt.segments if isinstance(segment, TokenSegment))
    return [token_id for segment in segments for token_id in segment.token_ids]


def num_after_tensors(prompt: Prompt) -> int:
    """How many tokens stand behind the last tensor of a prompt."""
    count = 0
    for segment in reversed(prompt.segments):
        if isinstance(segment, TensorSegment):
            break
        count += len(segment.token_ids)
    return count


def only_text_ids(prompt: Prompt, vocabulary: Vocabulary) -> list[int]:
    """All token ids of a prompt for a model that reads text only.

    Raises:
        PromptRejected: it has anything else, no token, or one without a row in the logits.
    """
    reject_tensors(prompt, vocabulary.name)
    token_ids = text_ids(prompt)
    check_prompt(token_ids, vocabulary.size)
    return token_ids


def reject_tensors(prompt: Prompt, name: str) -> None:
    """Refuse a prompt with anything but token ids.

    Raises:
        PromptRejected: naming the first tensor.
    """
    tensor = next((segment for segment in prompt.segments if isinstance(segment, TensorSegment)), None)
    if tensor is not None:
        raise PromptRejected(
            f"{name} reads text only, and the prompt has the tensor {tensor.name!r}: use a model that takes it, or "
            "leave it out"
        )


def require_finite(logits: Array, name: str) -> None:
    """Refuse a prompt after which a model gives logits that are not finite.

    Args:
        logits: float [1, vocab_size], after the prompt's last token.
    Raises:
        PromptRejected: one of them is not finite.
    """
    if not bool(array_namespace(logits).isfinite(logits).all()):
        raise PromptRejected(f"{name} gives no finite logits after this prompt")
