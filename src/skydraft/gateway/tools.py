"""Tools that an app offers: what a text must be that calls one, and what calls a text has.

Calls are written as Hermes and Qwen write them (`core/grammar`, `tool_calls`). A model that may choose is told of the
tools by its chat format; one that must call is held to it by a grammar.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from skydraft.core import Grammar, tool_calls
from skydraft.gateway.problems import BadRequest

JsonFields = dict[str, Any]
ToolChoice: TypeAlias = str | JsonFields | None

CALL_BEGIN = "<tool_call>"
_CALL = re.compile(rf"{CALL_BEGIN}\s*(\{{.*?\}})\s*</tool_call>", re.DOTALL)


def offered_tools(tools: Sequence[JsonFields] | None, choice: ToolChoice) -> list[JsonFields]:
    """The functions that may be called; tools of other kinds are nobody's business here.

    Args:
        tools, choice: as OpenAI's chats have them.

    Raises:
        BadRequest: a function has no name.
    """
    if choice == "none":
        return []
    offered = [tool for tool in tools or () if tool.get("type") == "function"]
    for tool in offered:
        if not isinstance(tool.get("function"), Mapping) or not isinstance(tool["function"].get("name"), str):
            raise BadRequest('a tool has no name: give {"type": "function", "function": {"name": ...}}', "tools")
    return offered


def required_calls(tools: Sequence[JsonFields], choice: ToolChoice, is_parallel: bool = False) -> Grammar | None:
    """What the text must be where a tool must be called; None: the model chooses.

    Args:
        tools: that are offered.
        is_parallel: several may be called at once.

    Raises:
        BadRequest: the tool that must be called is not among them.
    """
    if not tools:
        return None
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    match choice:
        case None | "auto" | "none":
            return None
        case "required":
            return tool_calls(schemas, is_parallel)
        case {"type": "function", "function": {"name": str(name)}} if name in schemas:
            return tool_calls({name: schemas[name]})
    raise BadRequest(
        f"tool_choice is {choice!r}; expected none, auto, required, or one of the tools by name",
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
