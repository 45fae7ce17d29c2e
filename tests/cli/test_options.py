from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from skydraft.cli.app import CHAT_TOKENS, app
from skydraft.cli.options import cloud_settings, device_settings, given
from skydraft.cloud.access.keys import KeyGrant
from skydraft.config import CloudSettings, DeviceSettings
from skydraft.core import Mode, ShareLevel, setting_fields
from skydraft.errors import ConfigError

ADD_KEY = app.commands["cloud-key"].commands["add"]  # type: ignore[attr-defined]
DEVICES = [app.commands[name] for name in ("caption", "listen", "generate", "chat", "doctor")]
CAPTION, CLOUD = app.commands["caption"], app.commands["cloud"]
OWNERS: list[tuple[click.Command, type[msgspec.Struct]]] = [(CLOUD, CloudSettings), (ADD_KEY, KeyGrant)]
OWNERS += [(device, DeviceSettings) for device in DEVICES]
CASES = [(command, settings, field) for command, settings in OWNERS for field in setting_fields(settings)]


def flags_of(command: click.Command, settings: type[Any], *typed: str) -> dict[str, Any]:
    """The settings that a command is called with."""
    needed = {"caption": ["FILE"], "generate": ["PROMPT"], "add": ["NAME", "--keys", "FILE"]}
    params = command.make_context(str(command.name), [*needed.get(str(command.name), []), *typed]).params
    return {name: value for name, value in params.items() if name in settings.__struct_fields__}


def test_a_command_may_have_defaults_of_its_own_under_files_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[device]\nmax_tokens = 9\n")
    assert device_settings(None, {}, {"max_tokens": 512}).max_tokens == 512
    assert device_settings(file, {}, {"max_tokens": 512}).max_tokens == 9
    assert device_settings(file, {"max_tokens": 7}, {"max_tokens": 512}).max_tokens == 7


def test_without_flags_the_settings_are_the_defaults() -> None:
    for command in DEVICES:
        assert device_settings(None, flags_of(command, DeviceSettings)) == DeviceSettings()
    assert cloud_settings(None, flags_of(CLOUD, CloudSettings)) == CloudSettings()


@pytest.mark.parametrize(("command", "settings", "field"), CASES)
def test_the_default_that_help_shows_is_the_one_of_the_setting(
    command: click.Command, settings: Any, field: Any
) -> None:
    option = next((option for option in command.params if option.name == field.name), None)
    if option is None:  # a setting of the file only, or one that this command has no use for
        assert field.setting.flag is None or command.name == "doctor"
        return
    assert isinstance(option, click.Option)
    shown = re.search(r" \[default: ([^]]*)\]$", str(option.help))
    if field.setting.unset is not None:
        assert shown is not None
        assert field.default in (None, 0, ()), "words stand for a default only where its value says nothing"
    elif field.default is None or field.default is False:
        assert shown is None
    else:
        assert shown is not None, "the help shows no default"
        typed = flags_of(command, settings, field.setting.flag, shown.group(1))[field.name]
        is_own = (command.name, field.name) == ("chat", "max_tokens")
        assert given({field.name: typed})[field.name] == (CHAT_TOKENS if is_own else field.default)


@pytest.mark.parametrize(
    ("name", "settings"), [("caption", DeviceSettings), ("generate", DeviceSettings), ("cloud", CloudSettings)]
)
def test_every_setting_that_a_person_may_want_has_a_flag(name: str, settings: Any) -> None:
    names = {option.name for option in app.commands[name].params}
    bounds = {"max_draft_tokens", "max_in_flight", "max_frame_bytes", "max_prompt_tokens", "max_tensor_bytes"}
    bounds |= {"max_connections", "max_connections_per_key", "max_sessions", "max_positions"}
    bounds |= {"max_state_bytes", "max_swap_bytes"}
    of_the_file_only = {*bounds, "num_slots", "prefill_tokens", "open_s", "idle_s", "stall_s", "private_patterns"}
    of_the_file_only |= {"logit_bias"}
    assert set(settings.__struct_fields__) - names <= of_the_file_only


@pytest.mark.parametrize("flag", ["--target", "--model"])
def test_target_and_model_are_two_words_for_the_model_of_the_cloud(flag: str) -> None:
    assert flags_of(CLOUD, CloudSettings, flag, "m")["model"] == "m"
    assert flags_of(CAPTION, DeviceSettings, flag, "m")["target"] == "m"


def test_every_setting_is_explained_where_it_is_declared() -> None:
    for settings in (DeviceSettings, CloudSettings, KeyGrant):
        assert all(field.setting is not None and field.setting.help for field in setting_fields(settings))


def test_a_flag_that_was_not_typed_leaves_the_setting_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "skydraft.toml"
    file.write_text('[device]\npad = true\nquantize = true\n[cloud]\nallowed_origins = ["https://example.org"]\n')
    typed = flags_of(CAPTION, DeviceSettings, "--raw")
    assert device_settings(file, typed) == DeviceSettings(pad=True, quantize=True, raw=True)
    origins = ("https://example.org",)
    assert cloud_settings(file, flags_of(CLOUD, CloudSettings)).allowed_origins == origins


def test_flags_go_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "skydraft.toml"
    file.write_text('[device]\nseed = 7\nmode = "cloud"\noffline = "fail"\n[cloud]\nport = 9\nnum_slots = 3\n')
    device = device_settings(file, {"mode": Mode.EDGE, "share": ShareLevel.NONE, "offline": "edge"})
    assert device == DeviceSettings(seed=7, mode=Mode.EDGE, share=ShareLevel.NONE, offline="edge")
    assert cloud_settings(file, {"port": 0}) == CloudSettings(port=0, num_slots=3)


def test_a_target_beside_a_cloud_that_runs_is_refused(tmp_path: Path) -> None:
    both = "--target b is the model of a cloud to be started and --cloud ws://a one that runs"
    with pytest.raises(ConfigError, match=both):
        device_settings(None, {"cloud": "ws://a", "target": "b"})
    file = tmp_path / "skydraft.toml"
    file.write_text('[device]\ncloud = "ws://a"\n')
    local = device_settings(file, {"cloud": None, "target": "b"})  # what is typed puts the file's cloud aside
    assert (local.cloud, local.target) == (None, "b")
    file.write_text('[device]\ncloud = "ws://a"\ntarget = "b"\n')
    with pytest.raises(ConfigError, match=both):
        device_settings(file, {"cloud": None, "target": None})


def test_a_cloud_that_is_typed_puts_the_target_of_a_file_aside(tmp_path: Path) -> None:
    file = tmp_path / "skydraft.toml"
    file.write_text('[device]\ntarget = "b"\n')
    assert device_settings(file, {"cloud": "ws://a", "target": None}).cloud == "ws://a"
    assert device_settings(file, {"cloud": "ws://a"}).cloud == "ws://a"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"temperature": -1.0}, "temperature is -1.0 and must be 0 to 100"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"accept": "nearly"}, "unknown acceptance rule 'nearly'"),
        ({"gate": "sometimes"}, "unknown gate 'sometimes'; expected one of"),
        ({"block_length": 65}, "block_length is 65"),
        ({"cloud": "ftp://x"}, "unknown form of a cloud's address 'ftp://x'"),
        ({"share": ShareLevel.NONE}, "share level none lets nothing leave the device"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_loaded(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        device_settings(None, wrong)
