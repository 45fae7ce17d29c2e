"""Chat templates: how a model folder formats a conversation as one text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from skydraft.errors import ModelLoadError, PromptRejected
from skydraft.text.checkpoint import Checkpoint, read_json
from skydraft.text.tokenizer import special_token

_TRAINING_TAG = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # marks what a loss counts; no meaning here

Message = Mapping[str, Any]  # role: "system", "user" or "assistant"; content: a text; and what else a template knows


class ChatTemplate:
    """A Jinja template that turns messages into the text that a model was trained on.

    It runs in a sandbox: it comes with a model's files, and is not trusted more than they are.

    Args:
        source: the template.
        variables: special tokens that it may name, such as bos_token.
        today: for templates that write the date.
    Raises:
        ModelLoadError: jinja2 is missing (the torch extra brings it), or the source is not a valid template.
    """

    def __init__(self, source: str, variables: Mapping[str, str], today: datetime | None = None) -> None:
        try:
            from jinja2 import TemplateSyntaxError
            from jinja2.ext import loopcontrols
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as error:
            raise ModelLoadError("a chat template needs jinja2: pip install 'skydraft[torch]'") from error
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = (today or datetime.now()).strftime
        self._variables = dict(variables)
        try:
            self._template = environment.from_string(_TRAINING_TAG.sub("", source))
        except TemplateSyntaxError as error:
            raise ModelLoadError(f"the chat template has an error in line {error.lineno}: {error.message}") from error

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The conversation as a text; encode it without special tokens, for it has its own.

        Args:
            tools: that the model may call, as OpenAI's API has them.

        Raises:
            PromptRejected: the template does not take these messages.
        """
        from jinja2 import TemplateError

        try:
            return self._template.render(
                messages=list(messages),
                tools=list(tools) or None,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise PromptRejected(f"the model's chat template does not take these messages: {error}") from error


def load_chat_template(checkpoint: Checkpoint) -> ChatTemplate | None:
    """The template of a model folder; None where it has none.

    Raises:
        ModelLoadError: see ChatTemplate.
    """
    settings = read_json(checkpoint.folder / "tokenizer_config.json", is_required=False)
    source = _source(checkpoint, settings)
    if source is None:
        return None
    tokens = {name: special_token(settings, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return ChatTemplate(source, {name: token for name, token in tokens.items() if token is not None})


def _source(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> str | None:
    path = checkpoint.folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    beside = read_json(checkpoint.folder / "chat_template.json", is_required=False)
    stated = beside.get("chat_template", settings.get("chat_template"))
    if isinstance(stated, list):  # several by name
        stated = next((entry.get("template") for entry in stated if entry.get("name") == "default"), None)
    return stated if isinstance(stated, str) else None


def _to_json(value: object, indent: int | None = None) -> str:
    # Jinja's own filter escapes what HTML must not have, which a model would then read.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)
