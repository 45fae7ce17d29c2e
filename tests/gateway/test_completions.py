"""Chat and bare completions over real sockets: every text is the cloud's own, in the form that clients expect."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from skydraft.cloud.access.keys import KeyGrant, add_key
from skydraft.config import GatewaySettings
from tests.cloud.running import get, samples
from tests.gateway.running import Served, request_of, served, truth
from tests.waiting import PATIENCE_S, wait_until

CHAT, BARE = "/chat/completions", "/completions"
ASKED = "ba de"
ENDLESS = "table:vocab=64,seed=3,order=2"
NUM_TOKENS = re.compile(rb"skydraft_gateway_tokens_total\{.*\} [1-9]")


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": ASKED}], "max_tokens": 40, **more}


def bare(**more: Any) -> dict[str, Any]:
    return {"model": "any", "prompt": ASKED, "max_tokens": 40, **more}


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0.8, "seed": 4},
        {"temperature": 1.2, "seed": 9, "top_k": 5, "min_p": 0.1},
        {"presence_penalty": 1.5},
        {"frequency_penalty": -1.5, "repetition_penalty": 1.3},
    ],
)
def test_a_chat_is_answered_with_the_clouds_own_text(gateway: Served, sampling: dict[str, Any]) -> None:
    answer = gateway.post(CHAT, chat(**sampling)).json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": truth(ASKED, **sampling), "refusal": None}
    assert (answer["object"], answer["model"]) == ("chat.completion", "the-table")
    assert choice["finish_reason"] in ("stop", "length")
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert sum(answer["skydraft"]["tokens"].values()) == answer["usage"]["completion_tokens"]
    assert answer["timings"]["draft_n"] >= answer["timings"]["draft_n_accepted"] >= 0
    assert "completion_tokens_details" not in answer["usage"]


@pytest.mark.parametrize(("mode", "words"), [("cloud", "ba de"), ("hybrid", "de ba")])
def test_tokens_of_a_prompt_that_the_cloud_had_read_before_are_counted_as_cached(
    gateway: Served, mode: str, words: str
) -> None:
    talk = [{"role": "user", "content": " ".join([words] * 50)}]
    cached = []
    for _ in range(3):
        answer = gateway.post(CHAT, chat(messages=talk, skydraft={"mode": mode}, max_tokens=10)).json()
        (choice,) = answer["choices"]
        assert choice["message"]["content"] == truth(" ".join(turn["content"] for turn in talk), max_tokens=10)
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        talk += [{"role": "assistant", "content": choice["message"]["content"]}, {"role": "user", "content": "de"}]
    assert cached == [0, 96, 96]


def test_a_bare_completion_goes_on_from_the_text(gateway: Served) -> None:
    answer = gateway.post(BARE, bare()).json()
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == truth(ASKED)


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat()), (BARE, bare())])
def test_a_stream_is_the_same_text_in_pieces(gateway: Served, path: str, body: dict[str, Any]) -> None:
    chunks = gateway.chunks(path, {**body, "stream": True})
    choices = [chunk["choices"][0] for chunk in chunks]
    texts = [choice["delta"].get("content", "") if path == CHAT else choice["text"] for choice in choices]
    assert "".join(texts) == truth(ASKED)
    assert [choice["finish_reason"] is None for choice in choices] == [True] * (len(choices) - 1) + [False]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all(chunk["model"] == "the-table" and chunk["created"] for chunk in chunks)
    assert all("usage" not in chunk for chunk in chunks)
    assert chunks[-1]["timings"]["predicted_n"] > 0
    if path == CHAT:
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}


def test_usage_comes_in_one_last_chunk_where_it_was_asked_for(gateway: Served) -> None:
    *chunks, last = gateway.chunks(CHAT, chat(stream=True, stream_options={"include_usage": True}))
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in chunks)


def test_several_choices_have_seeds_that_follow_each_other(gateway: Served) -> None:
    body = chat(n=3, temperature=0.9, seed=20)
    answer = gateway.post(CHAT, body).json()
    expected = [truth(ASKED, temperature=0.9, seed=seed) for seed in (20, 21, 22)]
    assert [choice["message"]["content"] for choice in answer["choices"]] == expected
    texts = ["", "", ""]
    for chunk in gateway.chunks(CHAT, {**body, "stream": True}):
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == expected


def test_twenty_streams_at_once_are_all_right(gateway: Served) -> None:
    def text(seed: int) -> str:
        chunks = gateway.chunks(BARE, bare(temperature=0.9, seed=seed, stream=True))
        return "".join(chunk["choices"][0]["text"] for chunk in chunks)

    with ThreadPoolExecutor(20) as threads:
        assert list(threads.map(text, range(20))) == [truth(ASKED, temperature=0.9, seed=seed) for seed in range(20)]


def test_a_conversation_is_one_text_where_the_model_has_no_chat_format(gateway: Served) -> None:
    messages = [
        {"role": "system", "content": "mo"},
        {"role": "user", "content": [{"type": "text", "text": ASKED}]},
    ]
    answer = gateway.post(CHAT, chat(messages=messages)).json()
    assert answer["choices"][0]["message"]["content"] == truth("mo\n\nba de")


def test_max_completion_tokens_is_the_newer_name(gateway: Served) -> None:
    answer = gateway.post(CHAT, chat(max_completion_tokens=3, temperature=1.0, seed=2)).json()
    assert answer["usage"]["completion_tokens"] <= 3
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_app_that_hangs_up_frees_its_slots(gateway: Served, is_streamed: bool) -> None:
    body = bare(max_tokens=4000, stream=is_streamed, logit_bias={}, temperature=0.1, seed=1)
    with httpx.Client(timeout=PATIENCE_S) as client:
        if is_streamed:
            with client.stream("POST", f"{gateway.url}{BARE}", json=body) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{gateway.url}{BARE}", json=body, timeout=httpx.Timeout(PATIENCE_S, read=1e-3))
    wait_until(lambda: not gateway.gateway.num_present)
    wait_until(lambda: samples(get(gateway.cloud.address, "/metrics").text)["skydraft_sessions"] == 0)


@pytest.mark.parametrize("path", [CHAT, BARE, "/responses"])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_text_that_is_broken_off_has_paid_for_what_there_was_of_it(
    tmp_path: Path, path: str, is_streamed: bool
) -> None:
    keys = tmp_path / "keys.toml"
    bearer = {"Authorization": f"Bearer {add_key(keys, 'phone', KeyGrant(tokens_per_minute=1))}"}
    asked = {CHAT: chat(), BARE: bare(), "/responses": {"input": ASKED}}[path]
    limit = "max_output_tokens" if path == "/responses" else "max_tokens"
    body = {**asked, limit: 4000, "stream": is_streamed}
    with served(GatewaySettings(port=0, keys=str(keys)), draft=ENDLESS, target=ENDLESS) as gateway:
        with gateway.connected() as app:
            app.sendall(request_of(path, body, **bearer))
            wait_until(lambda: NUM_TOKENS.search(gateway.gateway.metrics.exposition()))
        wait_until(lambda: not gateway.gateway.num_present)
        spent = gateway.post(path, {**asked, limit: 1}, **bearer)
        assert (spent.status_code, spent.json()["error"]["type"]) == (429, "rate_limit_error")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"temperature": 400}, "temperature is 400"),
        ({"messages": []}, "not as it should be"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "unknown role 'robot'"),
        ({"messages": [{"role": "user", "content": "  "}]}, "blank"),
        ({"n": 99}, "not as it should be"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"guided_regex": "a+"}, "guided_regex would change the text"),
        ({"min_tokens": 5}, "min_tokens would change the text"),
        ({"response_format": {"type": "json_schema"}}, "expected type text, json_object, or json_schema"),
        ({"logit_bias": {"a": 1}}, "no number"),
        ({"prediction": {"type": "content", "content": 7}}, "prediction is no text"),
        ({"tools": [{"type": "function"}]}, "a tool has no name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "many"}, "tool_choice is 'many'"),
        ({"skydraft": {"share": "features"}}, "lets more leave the device"),
        ({"skydraft": {"colour": "red"}}, "unknown field 'colour'"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "5 stop strings"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "'image_url' is not understood"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}
                ]
            },
            "cannot hear",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(gateway: Served, more: dict[str, Any], sentence: str) -> None:
    for is_streamed in (False, True):
        response = gateway.post(CHAT, chat(stream=is_streamed, **more))
        assert response.status_code == 400
        error = response.json()["error"]
        assert sentence in error["message"]
        assert error["type"] == "invalid_request_error"
        assert set(error) == {"message", "type", "param", "code"}


def test_what_does_not_change_the_text_is_accepted(gateway: Served) -> None:
    harmless = {
        "user": "me",
        "store": False,
        "reasoning_effort": "low",
        "parallel_tool_calls": True,
        "min_tokens": 0,
        "presence_penalty": 0,
        "logit_bias": {},
        "tools": [],
        "something_new": {"a": [1]},
        "response_format": {"type": "text"},
        "service_tier": "auto",
    }
    answer = gateway.post(CHAT, chat(**harmless))
    assert answer.json()["choices"][0]["message"]["content"] == truth(ASKED)


def test_a_header_chooses_what_the_configuration_allows(gateway: Served) -> None:
    answer = gateway.post(CHAT, chat(), **{"X-Skydraft-Way": "cloud"}).json()
    assert answer["timings"]["draft_n"] == 0
    refused = gateway.post(CHAT, chat(), **{"X-Skydraft-Share": "features"})
    assert refused.status_code == 400


def test_a_prompt_that_is_too_long_says_so_as_clients_expect(gateway: Served) -> None:
    response = gateway.post(BARE, bare(prompt="ba " * 5000))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_stop_string_ends_the_text_and_is_not_shown(gateway: Served, is_streamed: bool) -> None:
    words = truth(ASKED).split(" ")
    body = bare(stop=[f"{words[7]} {words[8]}", "never"], stream=is_streamed)
    expected = " ".join(words[:7]) + " "
    if is_streamed:
        chunks = gateway.chunks(BARE, body)
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == expected
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    else:
        (choice,) = gateway.post(BARE, body).json()["choices"]
        assert (choice["text"], choice["finish_reason"]) == (expected, "stop")


def test_a_bias_decides(gateway: Served) -> None:
    answer = gateway.post(BARE, bare(logit_bias={"7": 100.0}, max_tokens=5)).json()
    assert len(set(answer["choices"][0]["text"].split())) == 1


def test_log_probabilities_are_the_targets_own(gateway: Served) -> None:
    answer = gateway.post(CHAT, chat(logprobs=True, top_logprobs=3)).json()
    (choice,) = answer["choices"]
    entries = choice["logprobs"]["content"]
    assert len(entries) == answer["usage"]["completion_tokens"]
    for entry in entries:
        assert len(entry["top_logprobs"]) == 3
        assert entry["logprob"] == entry["top_logprobs"][0]["logprob"] < 0  # greedy
        assert bytes(entry["bytes"]).decode() == entry["token"]
    streamed = gateway.chunks(CHAT, chat(logprobs=True, top_logprobs=3, stream=True))
    pieces = [chunk["choices"][0]["logprobs"] for chunk in streamed]
    assert [entry for piece in pieces if piece for entry in piece["content"]] == entries
    bare_answer = gateway.post(BARE, bare(logprobs=0)).json()["choices"][0]["logprobs"]
    assert bare_answer["token_logprobs"] == [entry["logprob"] for entry in entries]
    assert bare_answer["top_logprobs"][0] == {}


@pytest.mark.parametrize("is_parts", [False, True])
def test_what_an_app_expects_is_one_more_guess_and_counted(gateway: Served, is_parts: bool) -> None:
    expected = truth(ASKED)
    content = [{"type": "text", "text": expected}] if is_parts else expected
    answer = gateway.post(CHAT, chat(prediction={"type": "content", "content": content})).json()
    assert answer["choices"][0]["message"]["content"] == expected
    details = answer["usage"]["completion_tokens_details"]
    assert details["accepted_prediction_tokens"] == answer["timings"]["draft_n_accepted"]
    assert details["rejected_prediction_tokens"] >= 0
