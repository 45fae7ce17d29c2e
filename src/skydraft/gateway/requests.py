"""What apps ask for, as OpenAI's clients write it.

Fields that nobody here knows are left out; `sampling` looks at those that would change a text.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from skydraft.gateway.problems import BadRequest

MAX_MESSAGES = 4096
MAX_CHOICES = 8
MAX_VALUES = 2**18  # of a request's JSON: each costs time and memory, whatever its size

Many = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
_Struct = TypeVar("_Struct", bound=msgspec.Struct)

Part: TypeAlias = dict[str, Any]
Content: TypeAlias = str | list[Part] | None


class ChatMessage(msgspec.Struct):
    """A turn of a conversation."""

    role: str
    content: Content = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class SamplingRequest(msgspec.Struct, kw_only=True):
    """What all requests for texts may say of how tokens are chosen; a field that is null is as one that is missing."""

    model: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    n: Many | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    skydraft: dict[str, Any] | None = None


class ChatRequest(SamplingRequest, kw_only=True):
    """POST /v1/chat/completions"""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prediction: dict[str, Any] | None = None


class CompletionRequest(SamplingRequest, kw_only=True):
    """POST /v1/completions"""

    prompt: str | list[Any]
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """POST /v1/responses"""

    input: str | list[dict[str, Any]]
    model: str = ""
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    background: bool | None = None
    text: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    top_logprobs: int | None = None
    metadata: dict[str, Any] | UnsetType | None = UNSET
    skydraft: dict[str, Any] | None = None


def parse(data: bytes, kind: type[_Struct]) -> tuple[_Struct, dict[str, Any]]:
    """Read a request.

    Returns:
        It, and all its fields as they came.
    Raises:
        BadRequest: it is no JSON object of this kind, or one of too many values.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        sentence = f"the request has more than {MAX_VALUES:,} values, commas in texts included: make it shorter"
        raise BadRequest(sentence, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any])
        return msgspec.convert(fields, kind), fields
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # ValidationError is one
        raise BadRequest(f"the request is not as it should be: {error}", _field_in(str(error))) from None
    except RecursionError:
        raise BadRequest("the request is nested too deeply") from None


def _field_in(sentence: str) -> str | None:
    """The field that a validation error names, as `$.messages[0].role`."""
    _, found, path = sentence.partition("`$.")
    return path.split("`")[0] if found else None
