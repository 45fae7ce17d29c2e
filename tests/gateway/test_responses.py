"""/v1/responses: items in, items or named events out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.running import Served, truth

ASKED = "ba de"


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "any", "input": ASKED, "max_output_tokens": 40, **more}


def test_a_response_is_the_clouds_own_text(gateway: Served) -> None:
    answer = gateway.post("/responses", asked(temperature=None)).json()
    (item,) = answer["output"]
    assert item["content"][0]["text"] == truth(ASKED)
    assert (answer["object"], answer["status"], item["role"]) == ("response", "completed", "assistant")
    assert answer["usage"]["output_tokens"] == len(truth(ASKED).split()) + 1  # and the end token
    assert answer["store"] is False


def test_instructions_and_items_are_a_conversation(gateway: Served) -> None:
    items = [
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
        ({"previous_response_id": "resp_1"}, "keeps no responses"),
        ({"background": True}, "keeps no responses"),
        ({"input": []}, "input is empty"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "'item_reference' is not understood"),
        ({"input": [{"role": 7}]}, "not as it should be"),
        ({"text": {"format": {"type": "json_schema"}}}, "json_schema with a schema"),
        ({"tools": [{"type": "function", "name": "f"}]}, "tools are not supported"),
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
