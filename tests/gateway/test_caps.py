"""What a request may choose of where its text is written: less than the configuration lets leave, never more."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from skydraft.config import DeviceSettings
from skydraft.errors import ConfigError
from skydraft.gateway.caps import OWN_FIELDS, refuse_asking_about_sounds
from skydraft.gateway.problems import BadRequest
from skydraft.gateway.requests import SamplingRequest
from skydraft.gateway.sampling import settings_for
from tests.gateway.running import served, truth

# Of each setting: what may be asked for where this is configured. Everything else is refused.
ALLOWED: dict[str, dict[str, set[str]]] = {
    "share": {
        "none": {"none"},
        "tokens": {"none", "tokens"},
        "features": {"none", "tokens", "features"},
    },
    "evidence": {
        "never": {"never"},
        "unsure": {"never", "unsure"},
        "always": {"never", "unsure", "always"},
    },
    "mode": {
        "edge": {"edge"},
        "cloud": {"edge", "cloud"},
        "hybrid": {"edge", "cloud", "hybrid", "auto"},
        "auto": {"edge", "cloud", "hybrid", "auto"},
    },
    "objective": {
        "privacy": {"privacy"},
        **{each: {"latency", "cost", "energy", "privacy"} for each in ("latency", "cost", "energy")},
    },
    "accept": {
        "rank:20": {"rank:20", "rank:3", "prob:0.1"},
        "prob:0.1": {"rank:20", "rank:3", "prob:0.1"},
        "exact": {"rank:20", "rank:3", "prob:0.1", "exact"},
        "rejection:4,16": {"rank:20", "rank:3", "prob:0.1", "exact", "rejection:4,16"},
        "rejection:8,16": {"rank:20", "rank:3", "prob:0.1", "exact", "rejection:4,16", "rejection:8,16"},
        "rejection:4,64": {"rank:20", "rank:3", "prob:0.1", "exact", "rejection:4,16", "rejection:4,64"},
    },
    "way": {
        "cloud": {"cloud"},
        **{each: {"auto", "tree", "wait:4", "cloud"} for each in ("auto", "tree", "wait:4")},
    },
}
# Under which each value of a setting can be had.
BASE: dict[str, dict[str, Any]] = {
    "share": {"mode": "auto", "cloud": "cloud.example"},
    "evidence": {"share": "features", "cloud": "cloud.example"},
    **{name: {"cloud": "cloud.example"} for name in ("mode", "objective", "accept", "way")},
}
PAIRS = [
    (name, most, asked)
    for name, allowed in ALLOWED.items()
    for most, asked in itertools.product(allowed, sorted(set().union(*allowed.values())))
]


def chosen(configured: DeviceSettings, **own: str) -> DeviceSettings:
    return settings_for(configured, SamplingRequest(skydraft=own), {})


def test_all_fields_have_an_order() -> None:
    assert set(OWN_FIELDS) == set(ALLOWED)


@pytest.mark.parametrize(("name", "most", "asked"), PAIRS)
def test_what_is_configured_caps_what_is_asked_for(name: str, most: str, asked: str) -> None:
    configured = DeviceSettings(**{**BASE[name], name: most})
    if asked in ALLOWED[name][most]:
        assert str(getattr(chosen(configured, **{name: asked}), name)) == asked
    else:
        with pytest.raises(BadRequest) as refused:
            chosen(configured, **{name: asked})
        assert repr(asked) in refused.value.sentence
        assert repr(most) in refused.value.sentence


@pytest.mark.parametrize(
    ("configured", "own", "sentence"),
    [
        # Evidence that leaves when the device is unsure, unless the mode is another.
        ({"share": "features"}, {"mode": "cloud"}, "evidence 'always' with mode 'cloud'.*'unsure' with mode 'hybrid'"),
        ({"share": "features", "evidence": "unsure"}, {"mode": "cloud"}, "evidence 'always'.*'unsure'"),
        ({"share": "features"}, {"evidence": "always"}, "evidence 'always'.*'unsure' with mode 'hybrid'"),
        ({"share": "features", "evidence": "never"}, {"evidence": "unsure"}, "evidence 'unsure'.*'never'"),
        # Auto under the objective privacy asks no cloud.
        (
            {"mode": "auto", "objective": "privacy"},
            {"mode": "hybrid"},
            "mode 'hybrid'.*'auto' with objective 'privacy'",
        ),
        (
            {"mode": "auto", "objective": "privacy"},
            {"objective": "cost"},
            "mode 'auto'.*'auto' with objective 'privacy'",
        ),
        ({"mode": "edge", "share": "features"}, {"mode": "auto"}, "mode 'auto'.*'edge'"),
        ({"mode": "edge"}, {"mode": "hybrid", "share": "features"}, "share 'features'.*'tokens'"),
        ({"objective": "privacy"}, {"objective": "latency", "mode": "auto"}, "objective 'latency'.*'privacy'"),
        # Where no rule is configured, texts are the cloud's own.
        ({}, {"accept": "rejection:8,64"}, "accept 'rejection:8,64'.*'exact'"),
    ],
)
def test_settings_that_depend_on_each_other(configured: dict[str, Any], own: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        chosen(DeviceSettings(cloud="cloud.example", **configured), **own)


@pytest.mark.parametrize(
    ("configured", "own"),
    [
        ({"share": "features", "evidence": "always"}, {"share": "tokens"}),  # and with it no evidence
        ({"share": "features", "evidence": "always"}, {"share": "none", "mode": "edge"}),
        ({"share": "features", "evidence": "always"}, {"mode": "cloud"}),
        ({"share": "features", "mode": "cloud"}, {"evidence": "never"}),
        ({"share": "features"}, {"mode": "cloud", "evidence": "never"}),
        ({"mode": "auto", "objective": "privacy"}, {"mode": "edge"}),
        ({"mode": "auto", "objective": "privacy"}, {"share": "none"}),
        ({}, {"mode": "auto", "objective": "privacy"}),
    ],
)
def test_less_may_be_asked_for(configured: dict[str, Any], own: dict[str, str]) -> None:
    settings = chosen(DeviceSettings(cloud="cloud.example", **configured), **own)
    assert {name: str(getattr(settings, name)) for name in own} == own


def test_what_cannot_be_at_all_is_said_as_of_any_setting() -> None:
    with pytest.raises(ConfigError, match="share level none lets nothing leave the device, and mode hybrid"):
        chosen(DeviceSettings(cloud="cloud.example"), share="none")


def test_a_sound_that_is_captioned_alone_stays_so() -> None:
    alone = DeviceSettings(cloud="cloud.example")
    for own in ({"mode": "cloud"}, {"accept": "exact"}):
        with pytest.raises(BadRequest, match=f"{next(iter(own))} '.*share 'tokens' and evidence 'never'"):
            refuse_asking_about_sounds(alone, chosen(alone, **own))
    refuse_asking_about_sounds(alone, chosen(alone, mode="edge"))
    told = DeviceSettings(cloud="cloud.example", accept="rank:20")
    refuse_asking_about_sounds(told, chosen(told, mode="cloud"))


def test_nothing_leaves_a_device_that_is_to_write_alone() -> None:
    with served(mode="edge", share="tokens") as gateway:
        body = {"prompt": "ba", "max_tokens": 3}
        for own in ({"mode": "hybrid"}, {"mode": "auto"}, {"mode": "cloud"}):
            refused = gateway.post("/completions", {**body, "skydraft": own})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "skydraft")
        assert gateway.post("/completions", body, **{"X-Skydraft-Mode": "hybrid"}).status_code == 400
        answer = gateway.post("/completions", {**body, "skydraft": {"accept": "rank:3"}}).json()
        assert answer["skydraft"]["bytes"] == {"up": 0, "down": 0}


def test_a_device_without_a_draft_model_says_that_it_cannot_write_alone() -> None:
    with served(mode="cloud") as gateway:
        body = {"prompt": "ba de", "max_tokens": 40}
        assert gateway.post("/completions", body).json()["choices"][0]["text"] == truth("ba de")
        refused = gateway.post("/completions", {**body, "skydraft": {"mode": "edge"}})
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
        assert "no draft model" in refused.json()["error"]["message"]
