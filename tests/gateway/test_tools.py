"""Tools: a model that must call one does, and what it writes comes as a call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from skydraft.config import DeviceSettings
from skydraft.core import Mode, Prompt, ShareLevel, json_object, json_schema, tool_calls
from skydraft.edge.job import OnText
from skydraft.edge.ready_prompt import ReadyPrompt
from skydraft.edge.report import Report, unwritten
from skydraft.edge.text_pace import TextPace
from skydraft.gateway.problems import BadRequest
from skydraft.gateway.tools import calls_in, offered_tools, required_calls
from skydraft.tasks.base import PromptPair
from tests.gateway.running import Served, served

LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}},
            "required": ["colour"],
            "additionalProperties": False,
        },
    },
}
OTHER = {"type": "function", "function": {"name": "other"}}
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "ba de"}], "max_tokens": 20}


NO_SPACES = {"0": -100, "1": -100}  # of which JSON may have any number
LETTERS = "table:vocab=97,letters=1,seed=3,order=2,end=96"
CALL = '<tool_call>\n{"name": "look_up", "arguments": {"colour": "red"}}\n</tool_call>'


@contextmanager
def writing(gateway: Served, text: str) -> Iterator[list[dict[str, Any]]]:
    """As if the model wrote this; gives with what it was asked to."""
    asked: list[dict[str, Any]] = []

    async def ready(*_: Any, **options: Any) -> ReadyPrompt:
        asked.append(options)
        return ReadyPrompt(PromptPair(Prompt(()), None), (), None, (), options["grammar"])

    async def write_ready(_: ReadyPrompt, settings: DeviceSettings, on_text: OnText, pace: TextPace) -> Report:
        report = unwritten(text, Mode.HYBRID, ShareLevel.TOKENS)
        on_text(report.pieces)
        return report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.gateway.client, "ready", ready)
        patch.setattr(gateway.gateway.client, "write_ready", write_ready)
        yield asked


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_text_that_calls_a_tool_comes_as_a_call(gateway: Served, is_streamed: bool) -> None:
    body = {**ASKED, "tools": [LOOK_UP, {"type": "web_search"}], "tool_choice": "required", "stream": is_streamed}
    with writing(gateway, CALL) as asked:
        if is_streamed:
            choices = [chunk["choices"][0] for chunk in gateway.chunks("/chat/completions", body)]
            (call,) = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
            assert not any(choice["delta"].get("content") for choice in choices)
            finish = choices[-1]["finish_reason"]
        else:
            (choice,) = gateway.post("/chat/completions", body).json()["choices"]
            (call,), finish = choice["message"]["tool_calls"], choice["finish_reason"]
            assert choice["message"]["content"] is None
    assert finish == "tool_calls"
    assert call["function"] == {"name": "look_up", "arguments": '{"colour": "red"}'}
    assert [each["tools"] for each in asked] == [[LOOK_UP]]
    assert asked[0]["grammar"] == tool_calls({"look_up": LOOK_UP["function"]["parameters"]})  # type: ignore[index]


def test_a_model_that_calls_none_answers_in_words(gateway: Served) -> None:
    body = {**ASKED, "tools": [LOOK_UP]}
    (choice,) = gateway.post("/chat/completions", body).json()["choices"]
    assert choice["message"]["content"]
    assert "tool_calls" not in choice["message"]
    chunks = gateway.chunks("/chat/completions", {**body, "stream": True})
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in chunks) == choice["message"]["content"]


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_an_answer_is_to_follow_the_schema_that_it_is_asked_for(gateway: Served, path: str) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}}
    with writing(gateway, '{"n": 1}') as asked:
        if path == "/responses":
            form: dict[str, Any] = {"type": "json_schema", "name": "x", "schema": schema}
            answer = gateway.post(path, {"input": "ba", "text": {"format": form}}).json()
            assert answer["output"][0]["content"][0]["text"] == '{"n": 1}'
        else:
            form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
            answer = gateway.post(path, {**ASKED, "response_format": form}).json()
            assert answer["choices"][0]["message"]["content"] == '{"n": 1}'
            gateway.post(path, {**ASKED, "response_format": {"type": "json_object"}})
            assert asked.pop()["grammar"] == json_object()
    assert [each["grammar"] for each in asked] == [json_schema(schema)]


def test_calls_in_a_conversation_are_told_as_chat_formats_want_them(gateway: Served) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": '{"colour": "red"}'}}
    messages = [
        {"role": "user", "content": "ba"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "de"},
    ]
    assert gateway.post("/chat/completions", {"messages": messages, "max_tokens": 5}).status_code == 200
    call["function"]["arguments"] = "{"  # type: ignore[index]
    refused = gateway.post("/chat/completions", {"messages": messages, "max_tokens": 5})
    assert "no JSON" in refused.json()["error"]["message"]


@pytest.fixture(scope="module")
def writing_letters() -> Iterator[Served]:
    """A pair that can write whatever a grammar asks for."""
    with served(target=LETTERS, draft=f"{LETTERS},noise=0.5") as running:
        yield running


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_answers_follow_a_schema_with_a_draft_and_without(writing_letters: Served, temperature: float) -> None:
    schema = LOOK_UP["function"]["parameters"]  # type: ignore[index]  # it is one of dicts
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {
        **ASKED,
        "response_format": form,
        "temperature": temperature,
        "seed": 5,
        "max_tokens": 60,
        "logit_bias": NO_SPACES,
    }
    texts = set()
    for way in ("tree", "wait:4", "cloud"):
        (choice,) = writing_letters.post("/chat/completions", {**body, "skydraft": {"way": way}}).json()["choices"]
        assert choice["finish_reason"] == "stop"
        texts.add(choice["message"]["content"])
    (text,) = texts
    assert json.loads(text)["colour"] in ("red", "blue")


def test_a_tool_that_must_be_called_is_called(writing_letters: Served) -> None:
    body = {**ASKED, "tools": [LOOK_UP], "tool_choice": "required", "max_tokens": 120, "logit_bias": NO_SPACES}
    (choice,) = writing_letters.post("/chat/completions", body).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "look_up"
    assert json.loads(call["function"]["arguments"])["colour"] in ("red", "blue")


def test_which_tools_may_and_must_be_called() -> None:
    tools = offered_tools([LOOK_UP, OTHER], None)
    assert tools == [LOOK_UP, OTHER]
    assert offered_tools([LOOK_UP], "none") == []
    assert required_calls(tools, None) is None
    assert required_calls(tools, "auto") is None
    assert required_calls([], "required") is None
    parameters = LOOK_UP["function"]["parameters"]  # type: ignore[index]  # it is one of dicts
    assert required_calls(tools, "required", True) == tool_calls({"look_up": parameters, "other": {}}, True)
    named = {"type": "function", "function": {"name": "look_up"}}
    assert required_calls(tools, named) == tool_calls({"look_up": parameters})
    with pytest.raises(BadRequest, match="tool_choice is"):
        required_calls(tools, {"type": "function", "function": {"name": "nobody"}})


def test_calls_are_found_in_a_text_and_other_texts_have_none() -> None:
    text = '<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>\n<tool_call>{"name": "b"}</tool_call>'
    assert [call["function"] for call in calls_in(text)] == [
        {"name": "a", "arguments": '{"x": 1}'},
        {"name": "b", "arguments": "{}"},
    ]
    for other in ("Hello.", "<tool_call>", "<tool_call>{no}</tool_call>", "<tool_call>{}</tool_call>"):
        assert calls_in(other) == []
