"""Requests with anything in their fields: an answer, or an error in OpenAI's form, and never a fault of ours."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skydraft.gateway.requests import ChatRequest, CompletionRequest, ResponsesRequest
from skydraft.gateway.sampling import _CHANGE_TEXT
from tests.gateway.running import Served
from tests.waiting import PATIENCE_S

NUM_EXAMPLES = 120
ANYWHERE = settings(
    max_examples=NUM_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TYPES = {"invalid_request_error", "rate_limit_error"}

TEXTS = st.sampled_from(["", " ", "ba de", "\x00", "\ud800", "<|end|>", "ba " * 3, "é\U0001f600"]) | st.text(max_size=9)
NUMBERS = st.sampled_from([0, 1, -1, 0.5, 2, 8, 2**31, 2**63, 2**64, -(2**63), 10**40, 1e308, -0.0, 1e-300])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["text", "input_text", "input_audio", "refusal", "image_url", 7]),
        "text": TEXTS | ANYTHING,
        "input_audio": ANYTHING
        | st.fixed_dictionaries({"data": TEXTS, "format": st.sampled_from(["wav", "mp3", "x"])}),
    },
)
CALLS = st.fixed_dictionaries(
    {},
    optional={
        "id": TEXTS,
        "type": st.sampled_from(["function", "x"]),
        "function": ANYTHING | st.fixed_dictionaries({"name": TEXTS, "arguments": TEXTS | ANYTHING}),
    },
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "robot", 7]),
        "content": TEXTS | st.lists(PARTS | ANYTHING, max_size=3) | ANYTHING,
        "tool_calls": st.lists(CALLS, max_size=2) | ANYTHING,
        "tool_call_id": TEXTS | ANYTHING,
        "name": TEXTS | ANYTHING,
    },
)
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "x", 7]),
        "role": TEXTS | st.sampled_from(["user", "assistant", "system"]),
        "content": TEXTS | st.lists(PARTS | ANYTHING, max_size=3) | ANYTHING,
        "call_id": TEXTS | ANYTHING,
        "name": TEXTS | ANYTHING,
        "arguments": TEXTS | ANYTHING,
        "output": TEXTS | ANYTHING,
    },
)
SCHEMAS = (
    st.sampled_from([{}, {"type": "object"}, {"type": 7}, {"$ref": "#"}, {"enum": []}, {"pattern": "("}]) | ANYTHING
)
FUNCTIONS = st.fixed_dictionaries({"name": TEXTS}, optional={"parameters": SCHEMAS, "description": ANYTHING})
TOOLS = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "web_search"])},
    optional={"function": FUNCTIONS | ANYTHING, "name": TEXTS, "parameters": SCHEMAS},
)
FORMATS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "json_object", "json_schema", "x"])},
    optional={"schema": SCHEMAS, "json_schema": st.fixed_dictionaries({"schema": SCHEMAS}) | ANYTHING},
)
# Of fields that take more than a number or a text: what is nearly right.
NEARLY: dict[str, st.SearchStrategy[Any]] = {
    "messages": st.lists(MESSAGES, max_size=4),
    "input": TEXTS | st.lists(ITEMS, max_size=4),
    "prompt": TEXTS,
    "tools": st.lists(TOOLS, max_size=2),
    "tool_choice": st.sampled_from(["none", "auto", "required", "x"]) | TOOLS,
    "response_format": FORMATS,
    "text": st.fixed_dictionaries({"format": FORMATS}),
    "prediction": st.fixed_dictionaries({"type": st.just("content"), "content": TEXTS | st.lists(PARTS, max_size=2)}),
    "skydraft": st.dictionaries(
        st.sampled_from(["share", "mode", "objective", "evidence", "accept", "way", "x"]),
        st.sampled_from(["none", "tokens", "edge", "cloud", "auto", "exact", "rank:3", "rejection:0,0", "tree"])
        | ANYTHING,
        max_size=3,
    ),
    "logit_bias": st.dictionaries(
        st.sampled_from(["1", "-1", "64", "16777215", "99999999999999999999", "a", "5"]), NUMBERS, max_size=3
    ),
    "stop": TEXTS | st.lists(TEXTS, max_size=5),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "n": st.integers(-1, 9),
    "max_tokens": st.integers(-1, 9),
    "max_output_tokens": st.integers(-1, 9),
}


def bodies(kind: type[msgspec.Struct], **always: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Requests of a kind, of which each field may be anything."""
    names = [field.encode_name for field in msgspec.structs.fields(kind)] + sorted(_CHANGE_TEXT)[:3]
    fields = {name: NEARLY.get(name, NUMBERS | TEXTS) | ANYTHING for name in names if name not in always}
    some = st.sets(st.sampled_from(sorted(fields)), max_size=2).flatmap(
        lambda chosen: st.fixed_dictionaries({name: fields[name] for name in sorted(chosen)})
    )
    return st.builds(lambda first, rest: {"max_tokens": 3, **first, **rest}, st.fixed_dictionaries(always), some)


def mostly(right: Any, others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """So that there is an answer more often than not, where the other fields allow it."""
    return st.integers(0, 3).flatmap(lambda choice: others if choice == 0 else st.just(right))


CHATS = bodies(ChatRequest, messages=mostly([{"role": "user", "content": "ba"}], NEARLY["messages"]))
BARE = bodies(CompletionRequest, prompt=mostly("ba", TEXTS | ANYTHING))
RESPONSES = bodies(ResponsesRequest, input=mostly("ba", NEARLY["input"] | ANYTHING), max_output_tokens=st.just(3))


def check(response: httpx.Response) -> None:
    """It is an answer, or says what is wrong as OpenAI's API does."""
    if response.status_code == 200:
        return
    assert 400 <= response.status_code < 500, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] in TYPES


@pytest.fixture(scope="module", autouse=True)
def nothing_is_logged(gateway: Served) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        logged: list[object] = []
        patch.setattr("skydraft.gateway.app.log.exception", lambda *words: logged.append(words))
        yield
        assert logged == []


@pytest.mark.parametrize(
    ("path", "requests"), [("/chat/completions", CHATS), ("/completions", BARE), ("/responses", RESPONSES)]
)
def test_fields_of_any_kind(gateway: Served, path: str, requests: st.SearchStrategy[dict[str, Any]]) -> None:
    with httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as app:

        @ANYWHERE
        @given(requests)
        def ask(body: dict[str, Any]) -> None:
            check(app.post(path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"}))

        ask()
    assert gateway.post(
        path, {"prompt": "ba", "input": "ba", "messages": [{"role": "user", "content": "ba"}]}
    ).is_success


@ANYWHERE
@given(st.binary(max_size=60) | st.binary(max_size=20).map(lambda data: b'{"prompt": "ba", "user": "' + data + b'"}'))
def test_bytes_of_any_kind(gateway: Served, data: bytes) -> None:
    check(httpx.post(f"{gateway.url}/completions", content=data, timeout=PATIENCE_S))


FIELDS = st.dictionaries(
    st.sampled_from(["model", "response_format", "stream", "temperature", "language", "x"]),
    st.sampled_from(
        ["json", "text", "srt", "vtt", "verbose_json", "nan", "inf", "-1", "1e999", "true", "\x00", "é", ""]
    )
    | st.text(max_size=9),
    max_size=4,
)


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@ANYWHERE
@given(FIELDS, st.binary(max_size=200), st.booleans())
def test_forms_of_any_kind(gateway: Served, fields: dict[str, str], data: bytes, is_form: bool) -> None:
    fields = {name: value for name, value in fields.items() if value < "\ud800" or value > "\udfff"}
    url = f"{gateway.url}/audio/transcriptions"
    if is_form:
        check(httpx.post(url, data=fields, files={"file": ("ba", data)}, timeout=PATIENCE_S))
    else:
        check(httpx.post(url, content=data, headers=FORM, timeout=PATIENCE_S))
