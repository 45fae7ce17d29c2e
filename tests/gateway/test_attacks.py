"""Apps that cost a gateway more than their requests are worth, over real sockets; honest ones go on meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from skydraft.cloud.access.keys import KeyGrant, add_key
from skydraft.cloud.limits import sliced_stream, strangers
from skydraft.config import GatewaySettings
from skydraft.gateway import requests
from skydraft.gateway.preparation_time import PreparationTime
from tests.gateway.running import Served, request_of, served, truth
from tests.waiting import PATIENCE_S, wait_until

BODY = {"prompt": "ba de", "max_tokens": 40}
PATH = "/completions"
FEW = 3


class Guarded(NamedTuple):
    """A gateway with keys. attacker, honest: what goes into the header."""

    served: Served
    attacker: str
    honest: str

    def is_served(self) -> bool:
        """Whether an honest app is."""
        answer = self.served.post(PATH, BODY, Authorization=self.honest)
        return bool(answer.status_code == 200 and answer.json()["choices"][0]["text"] == truth("ba de"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    attacker, honest = (f"Bearer {add_key(file, name, KeyGrant())}" for name in ("attacker", "honest"))
    settings = GatewaySettings(port=0, keys=str(file), max_connections_per_key=FEW, stall_s=1.0)
    with served(settings) as gateway:
        yield Guarded(gateway, attacker, honest)


def head(length: object = 9, path: str = PATH, **headers: str) -> bytes:
    lines = [f"POST /v1{path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


def is_ended(connection: socket.socket) -> bool:
    """Whether the gateway has ended it, after what it said."""
    connection.settimeout(PATIENCE_S)
    with suppress(ConnectionError):
        while connection.recv(2**16):
            pass
    return True


def status_of(connection: socket.socket) -> int:
    return int(connection.recv(2**16).split()[1])


def test_who_has_no_key_has_one_request_on_a_connection(guarded: Guarded) -> None:
    with guarded.served.connected() as app:
        app.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        said = b""
        while piece := app.recv(2**16):
            said += piece
    assert said.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in said


def test_a_body_without_a_key_is_not_read(guarded: Guarded) -> None:
    with guarded.served.connected() as app:
        app.sendall(head(2**24))
        assert status_of(app) == 401
        with suppress(ConnectionError):
            for _ in range(2**24 // 2**16):
                app.sendall(bytes(2**16))
        assert is_ended(app)
    assert guarded.is_served()


@pytest.mark.parametrize("between", [b"", b"POST /v1/comp"])
def test_a_connection_between_two_requests_is_a_strangers(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, between: bytes
) -> None:
    monkeypatch.setattr(strangers, "STRANGER_S", 0.2)
    with guarded.served.connected() as app:
        app.sendall(request_of(PATH, BODY, Authorization=guarded.attacker))
        assert status_of(app) == 200
        app.sendall(between)
        assert is_ended(app)


def test_an_answer_that_is_not_read_ends_its_connection(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was written in one piece, and that the system has taken only in part."""
    monkeypatch.setattr(strangers, "STRANGER_S", 0.5)
    state = guarded.served.server.server_state
    with guarded.served.connected() as app:
        num_before = state.total_requests
        app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        many = {**BODY, "prompt": "ba", "max_tokens": 200, "n": 8, "logprobs": 20, "logit_bias": {"5": -100}}
        app.sendall(request_of(PATH, many, Authorization=guarded.attacker))
        wait_until(lambda: state.total_requests > num_before)
        wait_until(lambda: not state.connections)
    assert guarded.is_served()


def test_half_a_body_takes_one_of_its_keys_places(guarded: Guarded) -> None:
    with ExitStack() as stack:
        for _ in range(FEW):
            app = stack.enter_context(guarded.served.connected())
            app.sendall(head(Authorization=guarded.attacker) + b"{")
        wait_until(lambda: guarded.served.gateway.num_arriving == FEW)
        refused = guarded.served.post(PATH, BODY, Authorization=guarded.attacker)
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
        assert guarded.is_served()
    wait_until(lambda: not guarded.served.gateway.num_arriving)


def test_bodies_that_wait_for_their_end_are_bounded_together(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced_stream, "MIN_UNFINISHED_BYTES", 2**18 + 2**16)
    monkeypatch.setattr(sliced_stream, "UNFINISHED_MESSAGES", 0)
    with served(guarded.served.gateway.settings) as gateway, ExitStack() as stack:
        apps = [stack.enter_context(gateway.connected()) for _ in range(FEW)]
        for app in apps:
            app.sendall(head(2**20, Authorization=guarded.attacker) + bytes(2**17))
        wait_until(lambda: len(gateway.server.server_state.connections) == FEW - 1)


def test_json_of_many_values_is_not_unpacked(guarded: Guarded) -> None:
    data = b'{"prompt": "ba", "x": [' + b"[]," * requests.MAX_VALUES + b"1]}"
    bearer = {"Authorization": guarded.attacker}
    refused = httpx.post(f"{guarded.served.url}{PATH}", content=data, headers=bearer, timeout=PATIENCE_S)
    assert (refused.status_code, refused.json()["error"]["type"]) == (413, "invalid_request_error")
    assert "262,144 values" in refused.json()["error"]["message"]


@pytest.mark.parametrize("path", [PATH, "/chat/completions", "/responses"])
def test_a_text_that_no_prompt_has_room_for_is_not_made_into_tokens(guarded: Guarded, path: str) -> None:
    text = "ba " * 700_000
    body = {PATH: {"prompt": text}, "/responses": {"input": text}}.get(
        path, {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}
    )
    refused = guarded.served.post(path, body, Authorization=guarded.attacker)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "2,097,152 at most" in refused.json()["error"]["message"]


def test_what_is_no_http_is_refused_in_the_same_form(guarded: Guarded) -> None:
    with guarded.served.connected() as app:
        app.sendall(b"NONSENSE\r\n\r\n")
        said = b""
        while piece := app.recv(2**16):
            said += piece
    status, _, body = said.partition(b"\r\n\r\n")
    assert b"400" in status.splitlines()[0]
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_an_app_that_begins_and_hangs_up_again_and_again_leaves_nothing(guarded: Guarded) -> None:
    data = request_of(PATH, {**BODY, "max_tokens": 4000, "stream": True}, Authorization=guarded.attacker)
    for _ in range(30):
        with guarded.served.connected() as app:
            app.sendall(data)
    assert guarded.is_served()
    wait_until(lambda: not guarded.served.gateway.num_present)
    wait_until(lambda: not guarded.served.gateway.num_arriving)


def test_a_keys_sessions_are_its_texts_at_the_same_time(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    bearer = {"Authorization": f"Bearer {add_key(file, 'phone', KeyGrant(max_sessions=4))}"}
    with served(GatewaySettings(port=0, keys=str(file))) as gateway:
        assert gateway.post(PATH, {**BODY, "n": 4}, **bearer).status_code == 200
        refused = gateway.post(PATH, {**BODY, "n": 5}, **bearer)
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
        assert "5 texts" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/completions", {"prompt": "ba", "n": 3}),
        ("/chat/completions", {"messages": [{"role": "user", "content": "ba"}], "n": 3}),
        ("/responses", {"input": "ba"}),
    ],
)
def test_a_request_is_read_and_its_prompt_made_ready_in_its_keys_time(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, object]
) -> None:
    events: list[str] = []
    device, of = guarded.served.gateway.device, PreparationTime.of
    encode = device.tokenizer.encode

    @asynccontextmanager
    async def seen(self: PreparationTime, name: str) -> AsyncIterator[None]:
        async with of(self, name):
            events.append(name)
            yield
            events.append("")

    def seen_encode(text: str, **options: bool) -> Sequence[int]:
        events.append("encodes")
        return encode(text, **options)

    monkeypatch.setattr(PreparationTime, "of", seen)
    monkeypatch.setattr(device.tokenizer, "encode", seen_encode)
    answer = guarded.served.post(path, {**body, "temperature": 1.0}, Authorization=guarded.honest)
    assert answer.status_code == 200
    assert [each for each, _ in groupby(events)] == ["honest", "", "honest", "encodes", ""]


def test_a_key_has_no_more_requests_that_wait_to_be_read_than_connections(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_gone_on = threading.Event()
    waiting: list[str] = []

    @asynccontextmanager
    async def slow(_: PreparationTime, name: str) -> AsyncIterator[None]:
        waiting.append(name)
        if name == "attacker":
            await asyncio.to_thread(has_gone_on.wait)
        yield

    monkeypatch.setattr(PreparationTime, "of", slow)
    with ThreadPoolExecutor(FEW) as apps:
        answers = [apps.submit(guarded.served.post, PATH, BODY, Authorization=guarded.attacker) for _ in range(FEW)]
        try:
            wait_until(lambda: waiting.count("attacker") == FEW)
            refused = guarded.served.post(PATH, BODY, Authorization=guarded.attacker)
            assert guarded.is_served()
        finally:
            has_gone_on.set()
    assert refused.status_code == 429
    assert f"all {FEW} connections of this API key are taken" in refused.json()["error"]["message"]
    assert [answer.result().status_code for answer in answers] == [200] * FEW


def test_an_app_that_hangs_up_before_its_request_is_read_is_forgotten(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, has_ended = threading.Event(), threading.Event()

    @asynccontextmanager
    async def endless(_: PreparationTime, name: str) -> AsyncIterator[None]:
        if name == "attacker":
            has_begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                has_ended.set()
        yield

    monkeypatch.setattr(PreparationTime, "of", endless)
    with guarded.served.connected() as app:
        body = json.dumps(BODY).encode()
        app.sendall(head(len(body), Authorization=guarded.attacker) + body)
        assert has_begun.wait(PATIENCE_S)
    assert has_ended.wait(PATIENCE_S)
    assert guarded.is_served()
