"""What is not about texts: models, health, metrics, and who may come in."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from skydraft.cloud.access.keys import KeyGrant, add_key
from skydraft.config import GatewaySettings
from skydraft.errors import ConfigError
from skydraft.gateway.serve import GatewayServer
from tests.gateway.running import Served, request_of, served
from tests.waiting import PATIENCE_S, wait_until

BODY = {"model": "x", "prompt": "ba", "max_tokens": 3}


def get(gateway: Served, path: str, **headers: str) -> httpx.Response:
    return httpx.get(gateway.url.removesuffix("/v1") + path, headers=headers, timeout=PATIENCE_S)


def test_the_one_model_is_listed_and_found_by_its_name(gateway: Served) -> None:
    (model,) = get(gateway, "/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("the-table", "model")
    assert get(gateway, "/v1/models/the-table").json() == model
    missing = get(gateway, "/v1/models/gpt")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_health_says_with_what_texts_are_written(gateway: Served) -> None:
    facts = get(gateway, "/health").json()
    assert (facts["status"], facts["model"], facts["share"]) == ("ok", "the-table", "tokens")
    assert facts["can_hear"] is False


def test_metrics_count_texts_and_problems(gateway: Served) -> None:
    gateway.post("/completions", BODY)
    gateway.post("/completions", {"prompt": 7})
    exposition = get(gateway, "/metrics").text
    assert "skydraft_gateway_texts_total" in exposition
    assert 'skydraft_gateway_problems_total{status="400"}' in exposition
    assert 'skydraft_gateway_tokens_total{origin="cloud"}' in exposition


def test_what_is_not_here_is_said_in_the_same_form(gateway: Served) -> None:
    for response in (get(gateway, "/v1/elsewhere"), get(gateway, "/v1/completions")):
        assert response.status_code in (404, 405)
        assert "is not here" in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000, b'{"a":' * 50_000])
def test_what_is_no_request_is_refused(gateway: Served, body: bytes) -> None:
    response = httpx.post(f"{gateway.url}/completions", content=body, timeout=PATIENCE_S)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_web_pages_of_other_origins_may_not_come_in(gateway: Served) -> None:
    response = gateway.post("/completions", BODY, Origin="https://evil.example")
    assert (response.status_code, response.json()["error"]["type"]) == (403, "permission_error")
    rebound = gateway.post("/completions", BODY, Host="evil.example")
    assert rebound.status_code == 403


def test_a_request_beyond_the_bound_is_not_read() -> None:
    with served(GatewaySettings(port=0, max_body_bytes=4096)) as gateway:
        long = gateway.post("/completions", {**BODY, "prompt": "ba " * 3000})
        assert long.status_code == 413

        def pieces() -> object:
            for _ in range(100):
                yield b" " * 100

        unstated = httpx.post(f"{gateway.url}/completions", content=pieces(), timeout=PATIENCE_S)  # type: ignore[arg-type]
        assert unstated.status_code == 413


def test_keys_origins_and_limits_are_those_of_a_cloud(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    key = add_key(keys, "phone", KeyGrant(tokens_per_minute=10))
    settings = GatewaySettings(port=0, keys=str(keys), allowed_origins=("https://chat.example",))
    with served(settings) as gateway:
        for wrong in ({}, {"Authorization": "Bearer nonsense"}):
            response = gateway.post("/completions", BODY, **wrong)
            assert (response.status_code, response.json()["error"]["type"]) == (401, "authentication_error")
            assert response.headers["www-authenticate"] == "Bearer"
            assert get(gateway, "/v1/models", **wrong).status_code == 401
        bearer = {"Authorization": f"Bearer {key}", "Origin": "https://chat.example"}
        good = gateway.post("/completions", {**BODY, "max_tokens": 30}, **bearer)
        assert good.status_code == 200
        assert good.headers["access-control-allow-origin"] == "https://chat.example"
        spent = gateway.post("/completions", BODY, **bearer)
        assert (spent.status_code, spent.json()["error"]["type"]) == (429, "rate_limit_error")
        assert spent.headers["retry-after"]
        preflight = httpx.options(
            f"{gateway.url}/completions",
            headers={
                "Origin": "https://chat.example",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://chat.example"


def test_an_endpoint_that_is_open_to_others_wants_keys_and_tls() -> None:
    with pytest.raises(ConfigError, match="no API keys"):
        GatewayServer(_NoGateway(GatewaySettings(host="0.0.0.0")), print)  # type: ignore[arg-type]


def test_a_connection_is_kept_for_as_many_requests_as_come(gateway: Served) -> None:
    where = urlsplit(gateway.url)
    with closing(HTTPConnection(str(where.hostname), where.port, timeout=PATIENCE_S)) as app:
        for _ in range(80):  # in one piece each, with more lines together than a head may have
            app.request("GET", "/v1/models")
            assert app.getresponse().read()


def test_a_head_of_too_many_lines_ends_the_connection(gateway: Served) -> None:
    with gateway.connected() as stream:
        stream.sendall(b"POST /v1/completions HTTP/1.1\r\n" + b"a: b\r\n" * 300)
        with suppress(ConnectionError):
            assert stream.recv(4096) == b""


class _NoGateway:
    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    with served(GatewaySettings(port=0, body_s=0.1)) as gateway, gateway.connected() as stream:
        stream.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 90\r\n\r\n{")
        assert b"408" in stream.recv(4096).splitlines()[0]


def test_an_app_that_reads_nothing_holds_nothing() -> None:
    with served(GatewaySettings(port=0, stall_s=0.1), max_tokens=4000) as gateway:
        body = {"prompt": "ba", "stream": True, "temperature": 5, "seed": 1, "n": 8}
        with gateway.connected() as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream.sendall(request_of("/completions", body))
            wait_until(lambda: "skydraft_gateway_requests 1.0" in get(gateway, "/metrics").text)
            wait_until(lambda: not gateway.gateway.num_present)
        assert gateway.post("/completions", BODY).status_code == 200


def test_connections_that_say_nothing_leave_room_for_others(gateway: Served) -> None:
    with ExitStack() as stack:
        for _ in range(400):  # more than there are places for strangers
            stack.enter_context(gateway.connected())
        assert gateway.post("/completions", BODY).status_code == 200
