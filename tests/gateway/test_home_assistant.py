"""The requests of Home Assistant's Local OpenAI LLM, as its 1.11.1 sends them (docs/recipes/smart-home.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway.running import Served, served
from tests.waiting import PATIENCE_S

LETTERS = "table:vocab=97,letters=1,seed=3,order=2,end=96"
HEADERS = {
    "Authorization": "Bearer placeholder",
    "HTTP-Referer": "https://github.com/skye-harris/hass_local_openai_llm",
    "X-Title": "Home Assistant",
}
TURN_ON = {
    "type": "function",
    "function": {
        "name": "HassTurnOn",
        "description": "Turns on/opens/presses a device or entity.",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}, "area": {"type": "string"}}},
    },
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "HassTurnOn", "arguments": '{"name": "lamp"}'}}
SYSTEM = {"role": "system", "content": "You are a voice assistant for Home Assistant.\nAn overview of the areas: ..."}
ASKED = {"role": "user", "content": [{"type": "text", "text": "ba de"}]}


@pytest.fixture(scope="module")
def home() -> Iterator[Served]:
    with served(target=LETTERS, draft=f"{LETTERS},noise=0.5", max_tokens=120) as running:
        yield running


def events(home: Served, *messages: object, **more: object) -> list[dict[str, Any]]:
    """The chunks of a chat; all that the integration always sends is in it."""
    body = {
        "model": "the-table",
        "temperature": 0.6,
        "parallel_tool_calls": False,
        "messages": [SYSTEM, ASKED, *messages],
        "stream": True,
        **more,
    }
    with httpx.stream("POST", f"{home.url}/chat/completions", json=body, headers=HEADERS, timeout=PATIENCE_S) as answer:
        assert answer.status_code == 200, answer.read()
        *data, last = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert last == "[DONE]"
    return [json.loads(each) for each in data]


def text_of(chunks: list[dict[str, Any]]) -> str:
    """As the integration takes it from the stream: the first chunk has the role, the last one why it ended."""
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert choices[0]["delta"]["role"] == "assistant"
    assert choices[-1]["finish_reason"] in ("stop", "length")
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_setting_it_up_lists_the_models(home: Served) -> None:
    listed = httpx.get(f"{home.url}/models", headers=HEADERS, timeout=PATIENCE_S).json()
    assert [model["id"] for model in listed["data"]] == ["the-table"]


def test_a_question_is_answered(home: Served) -> None:
    assert text_of(events(home))


def test_a_question_with_assist_tools_is_answered(home: Served) -> None:
    assert text_of(events(home, tools=[TURN_ON]))


def test_the_result_of_a_tool_is_taken_and_the_conversation_goes_on(home: Served) -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": '{"speech": {}, "response_type": "action_done"}'}
    assert text_of(events(home, called, result, tools=[TURN_ON], tool_choice="none"))


def test_an_ai_task_gets_what_its_schema_says(home: Served) -> None:
    schema = {
        "type": "object",
        "properties": {"is_on": {"type": "boolean"}},
        "required": ["is_on"],
        "additionalProperties": False,
        "strict": True,
    }
    structure = {"type": "json_schema", "json_schema": {"name": "lamp", "strict": True, "schema": schema}}
    said = text_of(events(home, response_format=structure, logit_bias={"0": -100, "1": -100}))
    assert isinstance(json.loads(said)["is_on"], bool)
