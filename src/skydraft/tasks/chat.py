"""A text prompt, raw or in the model's chat format, with a private context that only the device reads.

Special tokens are read as such in the chat format only, which comes with the model. The words of the user and the
context are ordinary text: `<|im_end|>` in them does not end a turn.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from skydraft.core import Prompt, SegmentKind, ShareLevel, TokenSegment
from skydraft.errors import ConfigError, PromptRejected
from skydraft.tasks.base import PromptPair, prompt_pair

Render: TypeAlias = Callable[[str], str]  # the user's words -> the whole prompt in the model's chat format
Conversation: TypeAlias = Sequence[Mapping[str, Any]]  # messages: role, content, and what else a chat format knows

CONTEXT_END = "\n\n"  # between the context and the request
TURN_BREAK = "\n\n"  # between what is said, where there is no chat format
MARK = "\ue000"  # a private-use character, around the number of a message
PLACEHOLDER = "\ue000skydraft\ue000"  # private-use characters, which occur in no template


Tools: TypeAlias = Sequence[Mapping[str, Any]]  # as OpenAI's API has them


class Template(Protocol):
    """The part of text.chat_template.ChatTemplate that is needed here."""

    def render(self, messages: Conversation, *, tools: Tools = ()) -> str: ...


class Encoder(Protocol):
    """The part of text.tokenizer.Tokenizer that is needed here."""

    def encode(self, text: str, add_special: bool = False) -> tuple[int, ...]: ...

    def encode_plain(self, text: str) -> tuple[int, ...]: ...


class _Framed(NamedTuple):
    """The user's words and what the chat format puts around them.

    is_start: without a chat format, the tokenizer adds the model's start token.
    """

    before: str
    words: str
    after: str
    is_start: bool


def chat_prompts(
    encoder: Encoder,
    text: str,
    share: ShareLevel,
    render: Render | None = None,
    context: str | None = None,
    is_raw: bool = False,
) -> PromptPair:
    """Build both sides' prompts for one request.

    Args:
        text: the request; both sides see it, unless the share level is `none`.
        share: `none`: the cloud gets no prompt; `tokens`: the request alone; `features`: the context too.
        render: the model's chat format; None: none is applied.
        context: a text that only the device may read.
        is_raw: no chat format is applied, and special tokens in the text are read as such.
    Raises:
        ConfigError: the text is blank, or the chat format does not contain the user's words exactly once.
    """
    if not text.strip():
        raise ConfigError(f"the prompt is blank ({text!r}): give a request")
    if is_raw:
        render = None
    framed = _framed(encoder, text, render, must_place=bool(context))
    request = Prompt((TokenSegment(encoder.encode(text, add_special=True) if is_raw else _ids(encoder, framed)),))
    if not context:
        return prompt_pair(request, request, share)
    start_ids = encoder.encode(framed.before, add_special=framed.is_start)
    context_ids = encoder.encode_plain(context + CONTEXT_END)
    asked_ids = encoder.encode(text) if is_raw else _ids(encoder, framed._replace(before="", is_start=False))
    segments = (
        TokenSegment(start_ids),
        TokenSegment(context_ids, SegmentKind.EVIDENCE),
        TokenSegment(asked_ids),
    )
    return prompt_pair(Prompt(tuple(segment for segment in segments if segment.token_ids)), request, share)


def conversation_prompts(
    encoder: Encoder,
    messages: Conversation,
    share: ShareLevel,
    template: Template | None = None,
    tools: Tools = (),
) -> PromptPair:
    """Build both sides' prompts for what comes next in a conversation.

    Args:
        messages: their contents are texts or None.
        share: `none`: the cloud gets no prompt; else both sides see the same.
        template: the model's chat format; None: the contents, one after the other, are continued.
        tools: that the model may call: the chat format tells it of them.
    Raises:
        ConfigError: nothing is said in them.
        PromptRejected: the chat format does not take them.
    """
    contents = [message.get("content") or "" for message in messages]
    if not any(content.strip() for content in contents):
        raise ConfigError("the conversation is blank: give a message with a text")
    if template is None:
        said = TURN_BREAK.join(content for content in contents if content)
        request = _ids(encoder, _Framed("", said, "", is_start=True))
    else:
        request = _conversation_ids(encoder, messages, contents, lambda turns: template.render(turns, tools=tools))
    prompt = Prompt((TokenSegment(request),))
    return prompt_pair(prompt, prompt, share)


def text_kind(messages: Conversation, tools: Tools = ()) -> str:
    """What texts have in common that an app asks for: what it says before the user does, and its tools.

    Short whatever they are. Models agree about as well in one text of a kind as in the next.
    """
    said = itertools.takewhile(lambda message: message.get("role") in ("system", "developer"), messages)
    told = [list(map(dict, part)) for part in (said, tools)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16] if any(told) else ""


def _conversation_ids(
    encoder: Encoder, messages: Conversation, contents: Sequence[str], render: Callable[[Conversation], str]
) -> tuple[int, ...]:
    """As `_ids`: the whole at once, unless what somebody says contains the name of a special token."""
    whole = render(messages)
    if all(encoder.encode(content) == encoder.encode_plain(content) for content in contents):
        return encoder.encode(whole)
    marked = render(
        [
            {**message, "content": f"{MARK}{index}{MARK}"} if contents[index] else message
            for index, message in enumerate(messages)
        ]
    )
    parts = re.split(f"{MARK}(\\d+){MARK}", marked)
    for trim in (str, str.strip):
        said = [trim(contents[int(part)]) if index % 2 else part for index, part in enumerate(parts)]
        if "".join(said) == whole:
            break
    else:
        raise PromptRejected(
            "the chat format changes what is said in the conversation, and there is the name of a special token in it, "
            "which must stay ordinary text: leave it out"
        )
    ids = [encoder.encode_plain(part) if index % 2 else encoder.encode(part) for index, part in enumerate(said) if part]
    return tuple(token_id for part in ids for token_id in part)


def _framed(encoder: Encoder, text: str, render: Render | None, must_place: bool) -> _Framed:
    """Find the user's words in the prompt that the chat format makes of them; it may have trimmed them."""
    if render is None:
        return _Framed("", text, "", is_start=True)
    parts, whole = render(PLACEHOLDER).split(PLACEHOLDER), render(text)
    if len(parts) == 2 and whole.startswith(parts[0]) and whole[len(parts[0]) :].endswith(parts[1]):
        before, after = parts
        return _Framed(before, whole[len(before) : len(whole) - len(after)], after, is_start=False)
    if must_place or encoder.encode(text) != encoder.encode_plain(text):
        what = "a private context" if must_place else "a text with the name of a special token in it"
        raise ConfigError(
            f"the chat format repeats the user's words {len(parts) - 1} times and {what} needs one place: "
            "use a format that contains them once"
        )
    return _Framed(whole, "", "", is_start=False)


def _ids(encoder: Encoder, framed: _Framed) -> tuple[int, ...]:
    """Encode the whole text at once, as in training, unless the user's words contain the name of a special token."""
    before, words, after, is_start = framed
    if encoder.encode(words) == encoder.encode_plain(words):
        return encoder.encode(before + words + after, add_special=is_start)
    return encoder.encode(before, add_special=is_start) + encoder.encode_plain(words) + encoder.encode(after)
