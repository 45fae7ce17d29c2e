"""Items of Open Responses: as messages of a conversation, and made of what a model wrote."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from skydraft.gateway.problems import BadRequest
from skydraft.gateway.requests import ChatMessage

JsonFields = dict[str, Any]


def items_of(given: str | Sequence[JsonFields]) -> list[JsonFields]:
    """What was said anew: a text is a message of the user's."""
    return [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else list(given)


def messages_of(items: Iterable[Mapping[str, Any]], instructions: str | None = None) -> list[ChatMessage]:
    """The conversation that items are.

    Raises:
        BadRequest: an item is of an unknown type, or not as it should be.
    """
    messages = [] if instructions is None else [ChatMessage("system", instructions)]
    try:
        for item in items:
            _add(messages, item)
    except msgspec.ValidationError as error:
        raise BadRequest(f"an input item is not as it should be: {error}", "input") from None
    return messages


def chat_tools(tools: Iterable[JsonFields] | None) -> list[JsonFields]:
    """Functions as chats offer them; tools of other kinds stay as they are."""
    return [
        {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
        if tool.get("type") == "function"
        else tool
        for tool in tools or ()
    ]


def chat_tool_choice(choice: str | JsonFields | None) -> str | JsonFields | None:
    """A function by its name as chats name it."""
    match choice:
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
    return choice


def message_item(text: str, status: str, item_id: str) -> JsonFields:
    """What a model says; without a text it has no content yet."""
    content = [text_part(text)] if text or status != "in_progress" else []
    return {"type": "message", "id": item_id, "status": status, "role": "assistant", "content": content}


def text_part(text: str) -> JsonFields:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(call: Mapping[str, Any]) -> JsonFields:
    """A call as `tools.calls_in` has it."""
    function = call["function"]
    names = {"call_id": call["id"], "name": function["name"], "arguments": function["arguments"]}
    return {"type": "function_call", "id": f"fc_{secrets.token_hex(16)}", "status": "completed", **names}


def _add(messages: list[ChatMessage], item: Mapping[str, Any]) -> None:
    match kind := item.get("type", "message"):
        case "message":
            fields = {name: item.get(name) for name in ("role", "content")}
        case "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if messages and messages[-1].tool_calls is not None:  # calls at once are of one message
                messages[-1].tool_calls.append(call)
                return
            fields = {"role": "assistant", "tool_calls": [call]}
        case "function_call_output":
            fields = {"role": "tool", "content": item.get("output"), "tool_call_id": item.get("call_id")}
        case "reasoning":  # of another model: no part of what was said
            return
        case _:
            raise BadRequest(
                f"an input item of type {kind!r} is not understood; expected message, function_call or "
                "function_call_output",
                "input",
            )
    messages.append(msgspec.convert(fields, ChatMessage))
