"""Tools that an app offers: what a text must be that calls one, and what calls a text has.

Calls are written as Hermes and Qwen write them (`core/grammar`, `tool_calls`). A model that may choose is told of the
tools by its chat format; one that must call is held to it by a grammar.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from skydraft.core import Grammar, tool_calls
from skydraft.gateway.problems import BadRequest
from skydraft.gateway.requests import ChatRequest

JsonFields = dict[str, Any]

CALL_BEGIN = "<tool_call>"
_CALL = re.compile(rf"{CALL_BEGIN}\s*(\{{.*?\}})\s*</tool_call>", re.DOTALL)


def offered_tools(asked: ChatRequest) -> list[JsonFields]:
    """The functions that may be called; tools of other kinds are nobody's business here.

    Raises:
        BadRequest: a function has no name.
    """
    if asked.tool_choice == "none":
        return []
    tools = [tool for tool in asked.tools or () if tool.get("type") == "function"]
    for tool in tools:
        if not isinstance(tool.get("function"), Mapping) or not isinstance(tool["function"].get("name"), str):
            raise BadRequest('a tool has no name: give {"type": "function", "function": {"name": ...}}', "tools")
    return tools


def required_calls(asked: ChatRequest, tools: Sequence[JsonFields]) -> Grammar | None:
    """What the text must be where a tool must be called; None: the model chooses.

    Raises:
        BadRequest: the tool that must be called is not among them.
    """
    if not tools:
        return None
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    match asked.tool_choice:
        case None | "auto" | "none":
            return None
        case "required":
            return tool_calls(schemas, asked.parallel_tool_calls or False)
        case {"type": "function", "function": {"name": str(name)}} if name in schemas:
            return tool_calls({name: schemas[name]})
    raise BadRequest(
        f"tool_choice is {asked.tool_choice!r}; expected none, auto, required, or one of the tools by name",
        "tool_choice",
    )


def calls_in(text: str) -> list[JsonFields]:
    """The calls that a text is made of, as OpenAI has them; none where it is another text."""
    calls = []
    for found in _CALL.finditer(text):
        try:
            call = json.loads(found[1])
            name, arguments = call["name"], call.get("arguments", {})
        except (ValueError, KeyError):
            return []
        function = {"name": name, "arguments": json.dumps(arguments)}
        calls.append({"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function})
    return calls
