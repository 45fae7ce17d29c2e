"""What a text must be: a JSON object, one of a schema, or a call of a tool."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from skydraft.errors import ConfigError, require

MAX_GRAMMAR_CHARS = 2**15  # a JSON schema of so many takes 0.17 s to compile

GrammarKind = Literal["json", "lark", "regex"]
JsonSchema = Mapping[str, Any]

# Small models are known to write blanks without end where JSON lets them. So many are the indentation of ten levels.
BLANKS = r"[ \n\r\t]{0,41}"


class Grammar(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A grammar that a text follows from its first token to its last.

    kind: json: the source is a JSON schema. lark, regex: it is in the dialect of llguidance.
    """

    kind: GrammarKind
    source: Annotated[str, Meta(min_length=1, max_length=MAX_GRAMMAR_CHARS)]

    def __post_init__(self) -> None:
        num_chars = len(self.source)
        require(1 <= num_chars <= MAX_GRAMMAR_CHARS, "the length of a grammar", num_chars, "1 to 32768 characters")


def json_object() -> Grammar:
    """Any JSON object."""
    return json_schema({"type": "object"})


def json_schema(schema: JsonSchema) -> Grammar:
    """JSON of a schema; between two of its signs are at most 41 blanks, unless its x-guidance says otherwise."""
    return Grammar("json", json.dumps(_with_few_blanks(schema)))


def tool_calls(
    tools: Mapping[str, JsonSchema],
    is_parallel: bool = False,
    begin: str = "<tool_call>\n",
    end: str = "\n</tool_call>",
) -> Grammar:
    """A call of one of these tools, as Hermes and Qwen write it: {"name": ..., "arguments": {...}} between two marks.

    Args:
        tools: of each name the schema of its arguments.
        is_parallel: there may be several calls, one below the other.
    Raises:
        ConfigError: there are no tools.
    """
    if not tools:
        raise ConfigError("a text that is to call a tool was given none: name one or more tools")
    calls = [_call_schema(name, arguments) for name, arguments in tools.items()]
    call = json.dumps(_with_few_blanks(calls[0] if len(calls) == 1 else {"anyOf": calls}))
    repeated = ' ("\\n" call)*' if is_parallel else ""
    return Grammar("lark", f"start: call{repeated}\ncall: {json.dumps(begin)} %json {call} {json.dumps(end)}\n")


def _with_few_blanks(schema: JsonSchema) -> JsonSchema:
    own = schema.get("x-guidance", {})
    says_it = not isinstance(own, Mapping) or "whitespace_flexible" in own
    return schema if says_it else {**schema, "x-guidance": {"whitespace_pattern": BLANKS, **own}}


def _call_schema(name: str, arguments: JsonSchema) -> JsonSchema:
    fields: Sequence[str] = ("name", "arguments")
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": arguments or {"type": "object"}},
        "required": fields,
        "additionalProperties": False,
    }
