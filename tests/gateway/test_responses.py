"""/v1/responses: items in, items or named events out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from skydraft.cloud.access.keys import Holder, KeyGrant, add_key
from skydraft.config import GatewaySettings
from skydraft.core import tool_calls
from skydraft.gateway import kept_responses
from skydraft.gateway.kept_responses import KEPT_S, KeptResponses
from skydraft.gateway.response_items import messages_of
from tests.gateway.running import Served, served, truth
from tests.gateway.test_tools import writing
from tests.waiting import PATIENCE_S

ASKED = "ba de"


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "any", "input": ASKED, "max_output_tokens": 40, **more}


def test_a_response_is_the_clouds_own_text(gateway: Served) -> None:
    answer = gateway.post("/responses", asked(temperature=None)).json()
    (item,) = answer["output"]
    assert item["content"][0]["text"] == truth(ASKED)
    assert (answer["object"], answer["status"], item["role"]) == ("response", "completed", "assistant")
    assert answer["usage"]["output_tokens"] == len(truth(ASKED).split()) + 1  # and the end token
    assert answer["usage"]["input_tokens_details"] == {"cached_tokens": 0}
    assert answer["store"] is True


def test_instructions_and_items_are_a_conversation(gateway: Served) -> None:
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ASKED}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "ku"}]},
        {"role": "user", "content": "mo"},
    ]
    answer = gateway.post("/responses", asked(input=items, instructions="ba")).json()
    assert answer["output"][0]["content"][0]["text"] == truth("ba\n\nba de\n\nku\n\nmo")
    assert answer["instructions"] == "ba"


def test_events_have_names_and_numbers_and_make_the_same_response(gateway: Served) -> None:
    events = [json.loads(data) for data in gateway.stream("/responses", asked(stream=True))]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert "".join(event["delta"] for event in events[4:-4]) == truth(ASKED) == events[-4]["text"]
    assert events[-1]["response"]["output"] == [events[-2]["item"]]


def test_a_text_that_is_cut_is_incomplete(gateway: Served) -> None:
    answer = gateway.post("/responses", asked(max_output_tokens=3)).json()
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"previous_response_id": "resp_1"}, "no response 'resp_1' of this key"),
        ({"conversation": "conv_1"}, "keeps responses and no conversations"),
        ({"background": True}, "in background"),
        ({"input": []}, "input is empty"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "'item_reference' is not understood"),
        ({"input": [{"role": 7}]}, "not as it should be"),
        ({"text": {"format": {"type": "json_schema"}}}, "json_schema with a schema"),
        ({"tools": [{"type": "function"}]}, "a tool has no name"),
        ({"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "x"}}, "tool_choice is"),
        ({"top_logprobs": 2}, "top_logprobs is not supported"),
        ({"temperature": 300}, "temperature is 300"),
    ],
)
def test_what_cannot_be_done_is_refused(gateway: Served, more: dict[str, Any], sentence: str) -> None:
    for is_streamed in (False, True):
        response = gateway.post("/responses", asked(stream=is_streamed, **more))
        assert response.status_code == 400
        assert sentence in response.json()["error"]["message"]


def test_tools_that_nobody_knows_are_no_error(gateway: Served) -> None:
    tools = [{"type": "web_search"}, {"type": "something_new"}]
    assert gateway.post("/responses", asked(tools=tools)).status_code == 200
    named = [{"type": "function", "name": "f"}]
    assert gateway.post("/responses", asked(tools=named, tool_choice="none")).status_code == 200


def test_a_response_says_how_it_came_about_where_it_is_asked_to(gateway: Served) -> None:
    *events, last = (
        json.loads(data) for data in gateway.stream("/responses", asked(stream=True, skydraft={"trace": True}))
    )
    assert all(event["skydraft"]["pieces"] for event in events if event["type"].endswith("text.delta"))
    assert len(last["response"]["skydraft"]["traces"]) == 1
    assert "traces" not in gateway.post("/responses", asked()).json()["skydraft"]


def go_on(gateway: Served, previous: str, more: object = "mo", **headers: str) -> Any:
    body = asked(input=more, previous_response_id=previous)
    return gateway.post("/responses", body, **headers)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_response_is_had_again_gone_on_from_and_forgotten(gateway: Served, is_streamed: bool) -> None:
    if is_streamed:
        first = json.loads(gateway.stream("/responses", asked(stream=True))[-1])["response"]
    else:
        first = gateway.post("/responses", asked()).json()
    url = f"{gateway.url}/responses/{first['id']}"
    assert httpx.get(url, timeout=PATIENCE_S).json() == first
    second = go_on(gateway, first["id"]).json()
    said = f"{ASKED}\n\n{truth(ASKED)}\n\nmo"
    assert second["output"][0]["content"][0]["text"] == truth(said)
    assert second["previous_response_id"] == first["id"]
    assert httpx.delete(url, timeout=PATIENCE_S).json() == {"id": first["id"], "object": "response", "deleted": True}
    assert (httpx.get(url, timeout=PATIENCE_S).status_code, httpx.delete(url, timeout=PATIENCE_S).status_code) == (
        404,
        404,
    )
    lost = go_on(gateway, first["id"])
    assert (lost.status_code, lost.json()["error"]["code"]) == (400, "previous_response_not_found")
    third = go_on(gateway, second["id"], "ba").json()
    assert third["output"][0]["content"][0]["text"] == truth(f"{said}\n\n{truth(said)}\n\nba")


def test_what_is_not_to_be_stored_is_not(gateway: Served) -> None:
    answer = gateway.post("/responses", asked(store=False)).json()
    assert answer["store"] is False
    assert httpx.get(f"{gateway.url}/responses/{answer['id']}", timeout=PATIENCE_S).status_code == 404


def test_a_response_belongs_to_the_key_that_made_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    mine, others = ({"Authorization": f"Bearer {add_key(file, name, KeyGrant())}"} for name in ("mine", "others"))
    with served(GatewaySettings(port=0, keys=str(file))) as gateway:
        made = gateway.post("/responses", asked(), **mine).json()["id"]
        url = f"{gateway.url}/responses/{made}"
        assert [httpx.get(url, headers=key, timeout=PATIENCE_S).status_code for key in (mine, others, {})] == [
            200,
            404,
            401,
        ]
        assert httpx.delete(url, headers=others, timeout=PATIENCE_S).status_code == 404
        assert go_on(gateway, made, **others).status_code == 400
        assert go_on(gateway, made, **mine).status_code == 200


CALL = '<tool_call>\n{"name": "look_up", "arguments": {"colour": "red"}}\n</tool_call>'
FUNCTION = {"type": "function", "name": "look_up", "description": "d", "parameters": {"type": "object"}}


@pytest.mark.parametrize("is_streamed", [False, True])
def test_calls_of_functions_are_items(gateway: Served, is_streamed: bool) -> None:
    choice = {"type": "function", "name": "look_up"}
    body = asked(tools=[FUNCTION, {"type": "web_search"}], tool_choice=choice, stream=is_streamed)
    with writing(gateway, CALL + CALL) as told:
        if is_streamed:
            events = [json.loads(data) for data in gateway.stream("/responses", body)]
            answer = events[-1]["response"]
            names = [each["type"].removeprefix("response.") for each in events]
            call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done"]
            assert names == ["created", "in_progress", *2 * [*call, "output_item.done"], "completed"]
            assert events[2]["item"]["arguments"] == ""
            assert events[3]["delta"] == events[4]["arguments"] == '{"colour": "red"}'
            assert [events[5]["item"], events[9]["item"]] == answer["output"]
        else:
            answer = gateway.post("/responses", body).json()
    assert [(item["type"], item["name"], item["arguments"]) for item in answer["output"]] == 2 * [
        ("function_call", "look_up", '{"colour": "red"}')
    ]
    assert (answer["status"], answer["tools"], answer["tool_choice"]) == ("completed", body["tools"], choice)
    assert [tool["function"]["name"] for tool in told[0]["tools"]] == ["look_up"]
    assert told[0]["grammar"] == tool_calls({"look_up": {"type": "object"}})


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_model_that_may_call_and_does_not_answers_in_words(gateway: Served, is_streamed: bool) -> None:
    body = asked(tools=[FUNCTION], stream=is_streamed)
    if is_streamed:
        events = [json.loads(data) for data in gateway.stream("/responses", body)]
        assert [event["delta"] for event in events if event["type"].endswith("text.delta")] == [truth(ASKED)]
        answer = events[-1]["response"]
    else:
        answer = gateway.post("/responses", body).json()
    assert answer["output"][0]["content"][0]["text"] == truth(ASKED)


def test_what_functions_gave_comes_back_as_items() -> None:
    def call(number: int) -> dict[str, str]:
        return {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}"}

    items: list[dict[str, Any]] = [
        {"role": "user", "content": "ba"},
        call(1),
        call(2),
        {"type": "function_call_output", "call_id": "c1", "output": "de"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "ku"}]},
        call(3),
    ]
    first, both, *outputs, again = messages_of(items)
    assert first.role == "user"
    assert [each["id"] for each in both.tool_calls or ()] == ["c1", "c2"]
    assert [(each.role, each.tool_call_id) for each in outputs] == [("tool", "c1"), ("tool", "c2")]
    assert [each["id"] for each in again.tool_calls or ()] == ["c3"]


def kept(name: str, size: int = 0) -> dict[str, str]:
    return {"id": name, "text": "x" * size}


A, B = Holder("a", KeyGrant(), "1"), Holder("b", KeyGrant(), "2")


def test_kept_responses_are_bounded_for_each_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_responses, "MAX_KEPT", 3)
    monkeypatch.setattr(kept_responses, "MAX_KEPT_BYTES", 1000)
    store = KeptResponses()
    for number in range(5):
        assert store.keep(A, kept(str(number)), [], 0.0)
    store.keep(B, kept("4"), [{"said": "by b"}], 0.0)
    assert [store.find(A, str(number), 0.0) is not None for number in range(5)] == [False, False, True, True, True]
    assert store.keep(A, kept("large", 960), [], 0.0)
    assert store.find(A, "4", 0.0) is None
    assert not store.keep(A, kept("too large", 1000), [], 0.0)
    of_other = store.find(B, "4", 0.0)
    assert of_other is not None
    assert of_other.conversation == [{"said": "by b"}]


def test_kept_responses_are_forgotten_in_time_and_are_no_later_keys_of_the_same_name() -> None:
    store = KeptResponses()
    store.keep(A, kept("old"), [], 0.0)
    store.keep(A, kept("new"), [], 10.0)
    assert store.find(A._replace(sha256="another"), "old", 0.0) is None
    store.forget_old(KEPT_S + 5.0)
    assert (store.find(A, "old", 0.0), store.forget(A, "old", 0.0)) == (None, False)
    assert store.find(A, "new", 0.0) is not None
    assert store.find(A, "new", KEPT_S + 11.0) is None
