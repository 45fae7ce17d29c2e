"""The page's files, what may be chosen on it, and who may use the gateway from it. What it looks like: tests/page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from skydraft.cli.summaries import MEANINGS, UNASKED, UNDRAFTED
from skydraft.cloud.access.keys import KeyGrant, add_key
from skydraft.config import DeviceSettings, GatewaySettings
from skydraft.core import Evidence, Mode, Origin, ShareLevel
from skydraft.gateway.choices import allowed_values
from skydraft.gateway.page import FOLDER
from tests.gateway.running import Served, served
from tests.waiting import PATIENCE_S

BODY = {"prompt": "ba be", "max_tokens": 40, "logprobs": 3}


def root(gateway: Served) -> str:
    return gateway.url.removesuffix("/v1")


def get(gateway: Served, path: str, **headers: str) -> httpx.Response:
    return httpx.get(root(gateway) + path, headers=headers, timeout=PATIENCE_S)


def test_all_that_the_page_names_is_served_here_and_may_ask_nobody_else(gateway: Served) -> None:
    page = get(gateway, "/")
    assert page.headers["content-type"].startswith("text/html")
    seen, to_see = set[str](), set(re.findall(r'(?:src|href)="(/page/[^"]+)"', page.text))
    assert len(to_see) >= 3
    while to_see:
        path = to_see.pop()
        seen.add(path)
        response = get(gateway, path)
        assert response.status_code == 200, path
        assert "default-src 'self'" in response.headers["content-security-policy"]
        named = re.findall(r'from "\./([^"]+)"|addModule\("/page/([^"]+)"', response.text)
        to_see |= {f"/page/{module or worklet}" for module, worklet in named} - seen
        hosts = set(re.findall(r"https?://[^\s\"'/)]+", response.text))
        assert hosts <= {"http://www.w3.org"}, "a namespace, which nobody asks for anything"
    names = {entry.name for entry in FOLDER.iterdir()} - {"index.html"}
    assert seen == {f"/page/{name}" for name in names}, "a file that nothing names, or the other way round"


def test_a_file_that_is_known_already_is_not_sent_again(gateway: Served) -> None:
    tag = get(gateway, "/page/page.css").headers["etag"]
    again = get(gateway, "/page/page.css", **{"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_nothing_else_of_the_disk_is_served(gateway: Served) -> None:
    for path in ("/page/", "/page/index.html", "/page/../gateway.py", "/page/%2e%2e/app.py", "/page//etc/passwd"):
        assert get(gateway, path).status_code == 404


def test_the_page_may_use_its_gateway_and_pages_of_other_ports_or_names_may_not(gateway: Served) -> None:
    own = root(gateway)
    assert gateway.post("/completions", BODY, Origin=own).status_code == 200
    port = urlsplit(own).port or 0
    for origin in (f"http://127.0.0.1:{port + 1}", "null", f"http://evil.example:{port}"):
        assert gateway.post("/completions", BODY, Origin=origin).status_code == 403
    rebound = {"Origin": f"http://evil.example:{port}", "Host": f"evil.example:{port}"}
    assert gateway.post("/completions", BODY, **rebound).status_code == 403
    assert get(gateway, "/metrics", **rebound).status_code == 403


def test_with_keys_the_page_is_given_to_anybody_and_what_it_asks_for_is_not(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key = add_key(keys, "me", KeyGrant())
    with served(GatewaySettings(port=0, keys=str(keys))) as gateway:
        assert get(gateway, "/").status_code == 200
        assert get(gateway, "/v1/choices", Origin=root(gateway)).status_code == 401
        holder = {"Authorization": f"Bearer {key}", "Origin": root(gateway)}
        assert get(gateway, "/v1/choices", **holder).json()["can_chat"] is True
        assert gateway.post("/completions", BODY, **holder).status_code == 200


def test_what_may_be_chosen_is_what_is_not_refused(gateway: Served) -> None:
    facts = get(gateway, "/v1/choices").json()
    assert (facts["model"], facts["can_hear"], facts["can_chat"]) == ("the-table", False, True)
    assert facts["choices"]["share"] == ["tokens", "none"]
    assert facts["choices"]["mode"][0] == "hybrid"
    for name, values in facts["choices"].items():
        for value in values:
            more = {"mode": "edge"} if value == "none" else {}
            response = gateway.post("/completions", {**BODY, "skydraft": {name: value, **more}})
            assert response.status_code == 200, (name, value, response.text)


@pytest.mark.parametrize(
    ("settings", "has_draft", "share", "evidence", "mode"),
    [
        (DeviceSettings(share=ShareLevel.FEATURES), True, "features none tokens", "unsure never", "hybrid edge auto"),
        (
            DeviceSettings(share=ShareLevel.FEATURES, evidence=Evidence.ALWAYS),
            True,
            "features none tokens",
            "always unsure never",
            "hybrid edge auto cloud",
        ),
        (DeviceSettings(mode=Mode.EDGE, share=ShareLevel.NONE), True, "none", "never", "auto edge"),
        (DeviceSettings(mode=Mode.CLOUD), False, "tokens", "never", "cloud"),
    ],
)
def test_what_the_configuration_does_not_allow_is_not_offered(
    settings: DeviceSettings, has_draft: bool, share: str, evidence: str, mode: str
) -> None:
    allowed = allowed_values(settings, has_draft)
    assert (allowed["share"], allowed["evidence"]) == (share.split(), evidence.split())
    assert set(allowed["mode"]) == set(mode.split())


def test_the_page_has_the_words_of_the_terminal() -> None:
    words = dict(re.findall(r"export const (\w+) = (\{.*?\n\});", (FOLDER / "words.js").read_text(), re.DOTALL))
    for name, table in (("MEANINGS", MEANINGS), ("UNASKED", UNASKED), ("UNDRAFTED", UNDRAFTED)):
        assert json.loads(words[name]) == {key.value: sentence for key, sentence in table.items()}


def test_a_trace_says_of_each_token_where_it_is_from_and_when_its_round_was(gateway: Served) -> None:
    *pieces, last = gateway.chunks(
        "/completions", {**BODY, "stream": True, "skydraft": {"trace": True, "way": "wait:3"}}
    )
    facts = last["skydraft"]
    (trace,) = facts["traces"]
    streamed = [piece for chunk in pieces for piece in chunk["skydraft"]["pieces"]]
    assert streamed == trace["pieces"]
    assert "".join(piece["text"] for piece in streamed) == "".join(chunk["choices"][0]["text"] for chunk in pieces)
    tokens = [token for piece in streamed for token in piece["tokens"]]
    for origin in Origin:
        assert sum(token["origin"] == origin for token in tokens) == facts["tokens"][origin]
    rounds = trace["time_line"]["rounds"]
    assert [each["round"] for each in rounds] == list(range(1, facts["rounds"] + 1))
    assert sum(each["drafted"] for each in rounds) == last["timings"]["draft_n"]
    assert sum(each["accepted"] for each in rounds) == last["timings"]["draft_n_accepted"]
    for each in rounds:
        assert sum(token["round"] == each["round"] for token in tokens) == each["tokens"]
        began, ended = each["at_cloud_s"]
        assert each["sent_s"][-1] <= began <= ended <= each["answered_s"] <= trace["time_line"]["total_s"]
    assert sum(num_tokens for _, num_tokens in trace["time_line"]["grown"]) == len(tokens)


def test_ranks_and_probabilities_are_told_where_they_were_asked_for(gateway: Served) -> None:
    asked = {**BODY, "logprobs": None, "skydraft": {"trace": True, "top_logprobs": 2}}
    answer = gateway.post("/completions", asked).json()
    tokens = [token for piece in answer["skydraft"]["traces"][0]["pieces"] for token in piece["tokens"]]
    assert {token["rank"] for token in tokens} == {1}, "greedy: each is the cloud's first choice"
    assert all(0 < token["probability"] <= 1 for token in tokens)
    without = gateway.post("/completions", {**BODY, "logprobs": None}, **{"X-Skydraft-Trace": "1"}).json()
    token = without["skydraft"]["traces"][0]["pieces"][0]["tokens"][0]
    assert set(token) == {"origin", "round"}
    many = {**BODY, "temperature": 3.0, "seed": 1, "logprobs": 0}
    drawn = gateway.post("/completions", many, **{"X-Skydraft-Trace": "true"}).json()["skydraft"]["traces"][0]
    assert {token["rank"] for piece in drawn["pieces"] for token in piece["tokens"]} == {None}
    refused = gateway.post("/completions", BODY, **{"X-Skydraft-Top-Logprobs": "many"})
    assert (refused.status_code, "must be a number" in refused.text) == (400, True)


def test_without_being_asked_nothing_of_it_is_told(gateway: Served) -> None:
    chunks = gateway.chunks("/completions", {**BODY, "stream": True})
    assert not any("skydraft" in chunk for chunk in chunks[:-1])
    assert "traces" not in chunks[-1]["skydraft"]
    disclosure = chunks[-1]["skydraft"]["disclosure"]
    assert disclosure["has_evidence"] is False
    assert sum(disclosure["up"].values()) == chunks[-1]["skydraft"]["bytes"]["up"]
