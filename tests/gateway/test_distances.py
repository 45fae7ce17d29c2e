"""A cloud at emulated distances: chosen by a request, where the gateway was told to let it."""

from __future__ import annotations

import pytest

from skydraft.config import GatewaySettings
from skydraft.errors import ConfigError
from skydraft.gateway.distances import ROUND_TRIPS_MS, distances_of
from tests.gateway.running import Served, served, truth

BODY = {"prompt": "ba be", "max_tokens": 12}


def test_a_request_chooses_how_far_away_its_cloud_is_and_the_text_is_the_same() -> None:
    with served(GatewaySettings(port=0, emulate_link=True)) as gateway:
        for round_trip_ms in (0, *ROUND_TRIPS_MS):
            asked = {**BODY, "skydraft": {"round_trip_ms": round_trip_ms, "trace": True, "mode": "cloud"}}
            answer = gateway.post("/completions", asked).json()
            assert answer["choices"][0]["text"] == truth("ba be", max_tokens=12)
            line = answer["skydraft"]["traces"][0]["time_line"]
            assert line["first_token_s"] >= 2 * round_trip_ms / 1000, "to connect, and to ask"
        by_header = gateway.post("/completions", {**BODY, "mode": "cloud"}, **{"X-Skydraft-Round-Trip-Ms": "50"})
        assert by_header.json()["timings"]["prompt_ms"] >= 100
        for value, sentence in ((30, "expected one of 0, 20, 50, 100, 200"), ("far", "must be a number")):
            refused = gateway.post("/completions", {**BODY, "skydraft": {"round_trip_ms": value}})
            assert (refused.status_code, sentence in refused.text) == (400, True)


def test_nobody_chooses_it_unless_the_gateway_was_told_so(gateway: Served) -> None:
    refused = gateway.post("/completions", {**BODY, "skydraft": {"round_trip_ms": 20}})
    assert (refused.status_code, "--emulate-link" in refused.text) == (400, True)


@pytest.mark.parametrize(
    ("cloud", "sentence"),
    [(None, "there is no cloud"), ("wss://gpu.example", "certificate is for its own name"), ("gpu.example", "TLS")],
)
async def test_there_must_be_a_cloud_that_a_link_can_lead_to(cloud: str | None, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        async with distances_of(GatewaySettings(emulate_link=True), cloud):
            pass
