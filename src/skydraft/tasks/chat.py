"""A text prompt, raw or in a model's chat format, with a private context that only the device reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from skydraft.core import Prompt, SegmentKind, ShareLevel
from skydraft.errors import ConfigError
from skydraft.tasks.base import Encode, PromptPair, prompt_pair, token_segment

Render: TypeAlias = Callable[[str], str]  # what the user says -> the whole prompt in the model's chat format

CONTEXT_END = "\n\n"  # between the context and what is asked about it
PLACEHOLDER = "\ue000skydraft\ue000"  # private-use characters: no template and no user writes them


def raw(text: str) -> str:
    """The chat format of a base model: none."""
    return text


def text_prompt(encode: Encode, text: str, render: Render = raw) -> Prompt:
    """Build a prompt without evidence: one segment, encoded as a whole."""
    return Prompt((token_segment(encode, render(_not_blank(text))),))


def context_prompt(encode: Encode, text: str, context: str, render: Render = raw) -> Prompt:
    """Build a prompt whose context, marked as evidence, stands before what is asked, in the same turn.

    Raises:
        ConfigError: the chat format does not hold the user's words exactly once.
    """
    before, after = _around_user(render)
    framed = (
        (before, SegmentKind.INSTRUCTION),
        (context + CONTEXT_END, SegmentKind.EVIDENCE),
        (_not_blank(text) + after, SegmentKind.INSTRUCTION),
    )
    return Prompt(tuple(token_segment(encode, part, kind) for part, kind in framed if part))


def chat_prompts(
    encode: Encode, text: str, share: ShareLevel, render: Render = raw, context: str | None = None
) -> PromptPair:
    """Build both sides' prompts for one request.

    Args:
        encode: text -> token ids; a begin-of-text token, where the model wants one, belongs into `render`.
        text: what is asked; both sides see it, unless the share level is `none`.
        share: `none`: the cloud gets no prompt; `tokens`: the request alone; `features`: the context too.
        render: the model's chat format; without one the text stands as it is.
        context: what only the device may read.
    Raises:
        ConfigError: the text is blank, or the chat format does not hold the user's words exactly once.
    """
    request = text_prompt(encode, text, render)
    if not context:
        return prompt_pair(request, request, share)
    return prompt_pair(context_prompt(encode, text, context, render), request, share)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ConfigError(f"the prompt is blank ({text!r}): write what is asked")
    return text


def _around_user(render: Render) -> tuple[str, str]:
    """What the chat format puts before and after the user's words."""
    parts = render(PLACEHOLDER).split(PLACEHOLDER)
    if len(parts) != 2:
        raise ConfigError(
            f"the chat format repeats the user's words {len(parts) - 1} times and a private context has one place: "
            "use a format that holds them once, or no context"
        )
    return parts[0], parts[1]
